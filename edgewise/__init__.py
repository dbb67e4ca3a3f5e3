"""Edgewise: efficient convolutional networks, from the paper to the device.

The public names stand in `__init__.pyi`, for type checkers and for this file alike. Each is
imported when first used, so that `import edgewise` does not import torch. None may have the name of
a module beside this file: importing the module would replace it.
"""

import os
import sys

import lazy_loader

# ONNX Runtime sends usage data from 1.29 on unless it is told not to, before it is imported. A tool
# that is trusted with people's photos sends nothing that nobody asked for.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenVINO loads its maker's telemetry, which keeps a number for its user in ~/intel, but goes
# without where that package is not to be had.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

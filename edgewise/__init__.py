"""Edgewise: efficient convolutional networks, from the paper to the device.

The public names stand in `__init__.pyi`, for type checkers and for this file alike. Each is
imported when first used, so that `import edgewise` does not import torch. None may have the name of
a module beside this file: importing the module would replace it.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

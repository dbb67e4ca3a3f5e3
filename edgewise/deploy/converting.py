"""What converters have in common: they chatter, and their errors speak of their own insides."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

from edgewise.deploy.onnx import quiet
from edgewise.errors import EdgewiseError, shortened

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.fx import Node

OPERATOR = re.compile(r"\baten\.(\w+)")  # as converters name what they lack


@contextmanager
def silent() -> Iterator[None]:
    """Nothing is printed: not by Python, and not by C++ code, which knows of no `sys.stdout`."""
    with ExitStack() as stack:
        null = stack.enter_context(open(os.devnull, "w"))  # noqa: PTH123
        for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
            stream.flush()
            saved = os.dup(number)
            stack.callback(os.close, saved)
            stack.callback(os.dup2, saved, number)
            os.dup2(null.fileno(), number)
        for redirect in (redirect_stdout, redirect_stderr):
            stack.enter_context(redirect(null))
        stack.enter_context(quiet())
        yield


@contextmanager
def converting(format: str, module: nn.Module, example: tuple[Tensor, ...]) -> Iterator[None]:
    """Silence, in which any error is one of ours that names what the format lacks, and the layer.

    Raises:
        EdgewiseError: the converter failed.
    """
    try:
        with silent():
            yield
    except (EdgewiseError, OSError):  # a full disk is not the network's fault
        raise
    except Exception as error:  # every converter has its own kinds
        reason = lacking(str(error), module, example) or shortened(error)
        raise EdgewiseError(f"{format} can't express this network: {reason}") from error


def lacking(words: str, module: nn.Module, example: tuple[Tensor, ...]) -> str:
    """The operator that a converter's error names, with the layers that need it; "" if none."""
    import torch

    if not (found := OPERATOR.search(words)):
        return ""
    operator = found[1]
    with silent():
        try:
            graph = torch.export.export(module, example).run_decompositions().graph
        except Exception:  # then there is no more to say
            return f"it lacks the operator {operator}"
    nodes = (node for node in graph.nodes if str(node.target).split(".")[1:2] == [operator])
    layers = dict.fromkeys(layer_of(node) for node in nodes)
    where = f", which {', '.join(layers)} needs" if layers else ""
    return f"it lacks the operator {operator}{where}"


def layer_of(node: Node) -> str:
    """The innermost module that an operator of an exported graph is of, as `named_modules` says.

    "the input and output" for what is in no module of the network.
    """
    stack = list(node.meta.get("nn_module_stack", {}).values())
    path = re.sub(r"^L\['self'\]\.?|^L__self__\.?", "", str(stack[-1][0])) if stack else ""
    return path.removeprefix("network.") or "the input and output"

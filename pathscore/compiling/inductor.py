"""Building a captured graph with TorchInductor: `build(capture, inputs) -> callable(list of tensors) -> tensors`.

The compiled graph draws from torch's own generators, so it draws what the eager program would have drawn. Built code is
kept on disk by TorchInductor's cache, and a later process with the same graph only traces.
"""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.fx import GraphModule

from pathscore.compiling.capture import Capture, device_of
from pathscore.compiling.cuda_graph import replayed
from pathscore.compiling.reading import Refusal
from pathscore.compiling.rewrites import rewrite

OPTIONS: dict[str, Any] = {
    "fallback_random": True,  # eager's random numbers, where Inductor would draw from a generator of its own
    "size_asserts": False,  # the shapes of a graph's inputs are its key
    "alignment_asserts": False,
    "inplace_buffers": False,  # results written over what is read are at times wrong (docs/speed.md)
    "compile_threads": 1,  # no pool of worker processes, which would outlive the building
}

CPU_OPTIONS: dict[str, Any] = {
    "cpp_wrapper": True,  # one file of C++ for the whole graph: quicker to build and to call than one for each loop
    "cpp.enable_floating_point_contract_flag": "fast",  # fused multiply-add
}


def build(capture: Capture, inputs: list[Tensor]) -> Callable[..., Any]:
    """Compile f(*captured, *inputs). Raises: Refusal without a compiler, or with TorchInductor's reason."""
    device = device_of([*capture.tensors, *inputs]).type
    if device == "cpu" and compiler() is None:
        raise Refusal("no C++ compiler: install g++, or name one in the environment variable CXX")
    try:
        rewrite(capture.graph, device)
        run = compile_graph(capture.graph, [*capture.tensors, *inputs])
        return replayed(run, capture, inputs) if device == "cuda" else run
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise Refusal(f"TorchInductor: {type(error).__name__}: {lines[0][:160]}") from error


def compile_graph(graph: GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
    """Compile a graph as it is."""
    from torch import _inductor, no_grad  # takes seconds: only where something is built

    device = device_of(inputs).type
    options = OPTIONS | (CPU_OPTIONS if device == "cpu" else {})
    with no_grad(), quiet(*CHATTY), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own affairs: deprecated calls of its, and what it would do on a GPU
        return _inductor.compile(graph, inputs, options=options)  # type: ignore  # private to torch, without types


CHATTY = ("torch.utils.cpp_extension", "torch._inductor")
"""Loggers that would tell of a CUDA toolkit without a GPU, and of operations that have no C++ of their own."""


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Keep torch's loggers from writing to the terminal of a program that only asked for a step."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def compiler() -> str | None:
    """The C++ compiler that TorchInductor would run on the CPU, None where there is none."""
    named = os.environ.get("CXX")
    return shutil.which(named) if named else shutil.which("g++") or shutil.which("clang++")

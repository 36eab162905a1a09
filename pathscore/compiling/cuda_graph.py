"""A compiled graph recorded once and replayed by the GPU: `replayed(run, capture, inputs) -> callable`.

Launching its kernels one by one takes the processor longer than the GPU needs for a small model; a CUDA graph is one
launch. Its kernels read and write the memory that they were recorded with: inputs are copied there, parameters and
learned state stay where they are, and results are copied out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from pathscore.compiling.capture import Capture, device_of
from pathscore.machine import streams

Run = Callable[..., Any]

WARM_UP = 2
"""Runs before recording, in which libraries make their workspaces: that cannot be recorded."""


def replayed(run: Run, capture: Capture, inputs: list[Tensor]) -> Run:
    """`run` as a CUDA graph; `run` itself, with a warning that says why, where it cannot be recorded."""
    if reason := unrecordable(capture):
        return _one_by_one(run, reason)
    elsewhere = [t for t in (*capture.tensors, *inputs) if t.device.type != "cuda"]
    if elsewhere:
        # A kernel is handed numbers from the processor's memory at its launch: they would be those of the recording.
        return _one_by_one(run, f"a tensor of shape {tuple(elsewhere[0].shape)} is on the {elsewhere[0].device.type}")
    try:
        return Replay(run, capture, inputs)
    except RuntimeError as error:
        return _one_by_one(run, str(error).strip().splitlines()[0][:160])


READS_BACK = {
    torch.ops.aten.multinomial.default,
    torch.ops.aten.normal.Tensor_Tensor,
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
}
"""Operations that read a value of the GPU on the processor, to check it for one, and so cannot be recorded."""


def unrecordable(capture: Capture) -> str | None:
    """Why a graph cannot be recorded, known before it is tried; None where nothing speaks against it."""
    found = [node for node in capture.graph.graph.nodes if node.target in READS_BACK]
    return f"{found[0].target} reads a value back" if found else None


Then = Callable[[Any], tuple[Tensor, ...]]


def composed(run: Run, then: Then) -> Run:
    """`then` of what `run` gives."""
    return lambda *tensors: then(run(*tensors))


class Replay:
    """f(*captured, *inputs) from one launch. Recording moves neither state nor the random stream.

    then: what follows in the same recording, a function of the results of `run`. moved: the tensors that it changes.

    Raises: RuntimeError where something in it cannot be recorded, as reading a value back cannot.
    """

    def __init__(
        self, run: Run, capture: Capture, inputs: list[Tensor], then: Then | None = None, moved: Iterable[Tensor] = ()
    ) -> None:
        self.alone, self.capture = run, capture
        self.run = run if then is None else composed(run, then)
        self.written = list({id(t): t for t in (*capture.written, *moved)}.values())
        self.captured, self.inputs = capture.tensors, [t.clone() for t in inputs]
        self._record()

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The results for these inputs, which come after the captured tensors; copies of them."""
        return tuple(t.clone() for t in self.launch(tensors[len(self.captured) :]))

    def launch(self, inputs: Iterable[Tensor]) -> tuple[Tensor, ...]:
        """The results for these inputs, where the next launch will put its own."""
        if self._places() != self.places:  # a tensor has been given other memory, by `.to()` for one
            self._record()
        for place, given in zip(self.inputs, inputs, strict=True):
            place.copy_(given)
        self.start = position(self.device)
        self.graph.replay()
        return self.results

    def rewind(self) -> None:
        """Put the random stream back to where the latest launch began to draw."""
        set_position(self.start, self.device)

    def followed_by(self, then: Then, moved: Iterable[Tensor]) -> Replay:
        """The same work with more behind it, as one recording."""
        return Replay(self.alone, self.capture, self.inputs, then, moved)

    def _record(self) -> None:
        device = self.device = device_of((*self.captured, *self.inputs))
        before, drawn = [t.clone() for t in self.written], streams.read(device)
        side, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
        self.graph, self.places = torch.cuda.CUDAGraph(), self._places()
        try:
            with torch.no_grad():
                side.wait_stream(current)
                with torch.cuda.stream(side):
                    for _ in range(WARM_UP):
                        self.run(*self.captured, *self.inputs)
                    with refusing_to_read_back():
                        self.run(*self.captured, *self.inputs)
                current.wait_stream(side)
                with generator_apart(device):
                    self._captured(torch.cuda.CUDAGraph(), side)  # a rehearsal: its failure leaves nothing behind
                self.results = self._captured(self.graph, side)
        finally:
            with torch.no_grad():
                for tensor, value in zip(self.written, before, strict=True):
                    tensor.copy_(value)
            streams.write(drawn, device)

    def _captured(self, graph: Any, side: Any) -> Any:
        with torch.cuda.graph(graph, stream=side):
            results = self.run(*self.captured, *self.inputs)
        torch.cuda.current_stream(results[0].device).wait_stream(side)
        return results

    def _places(self) -> list[int]:
        return [t.data_ptr() for t in self.captured]


def position(device: torch.device) -> int:
    """How far the device's default generator has drawn."""
    return torch.cuda.default_generators[device.index or 0].get_offset()


def set_position(start: int, device: torch.device) -> None:
    """Have the device's default generator draw from there."""
    torch.cuda.default_generators[device.index or 0].set_offset(start)


@contextmanager
def refusing_to_read_back() -> Iterator[None]:
    """Have torch raise where the processor waits for a value of the GPU: known before recording, and harmless."""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype", UserWarning)
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(mode)


@contextmanager
def generator_apart(device: torch.device) -> Iterator[None]:
    """Draw from a copy of the default generator's state inside; the state itself is put back on leaving.

    A recording that fails leaves the state it drew from in the midst of recording, and each later draw fails with it.
    """
    generator = torch.cuda.default_generators[device.index or 0]
    kept = generator.graphsafe_get_state()
    generator.graphsafe_set_state(generator.clone_state())
    try:
        yield
    finally:
        generator.graphsafe_set_state(kept)


def _one_by_one(run: Run, reason: str) -> Run:
    warnings.warn(f"--compile: kernels are launched one by one: {reason}", UserWarning, stacklevel=2)
    return run

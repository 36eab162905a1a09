"""An emulated GPU, for tests of what is recorded there: `emulate(monkeypatch)`, and `builder()` for a `CompiledELBO`.

It keeps to what a CUDA graph does: a recording holds the very tensors it was made with, a replay reads them, draws anew
and writes into the results of the recording.
"""

from contextlib import contextmanager, nullcontext

import torch

from pathscore.compiling import cuda_graph
from pathscore.compiling.cuda_graph import Replay


class Recorded:
    """Stands for `torch.cuda.CUDAGraph`."""

    def replay(self):
        fn, tensors, results = self.work
        with torch.no_grad():
            for place, value in zip(results, fn(*tensors), strict=True):
                place.copy_(value)


class Kernels:
    """A captured graph; called while recording it notes its work."""

    recording = None

    def __init__(self, fn):
        self.fn = fn

    def __call__(self, *tensors):
        results = [torch.as_tensor(result).clone() for result in self.fn(*tensors)]
        if Kernels.recording is not None:
            Kernels.recording.work = self.fn, tensors, results
        return results


class Stream:
    def __init__(self, device):
        pass

    def wait_stream(self, other):
        pass


def emulate(monkeypatch):
    """Put the emulation in the place of torch's CUDA graphs."""

    @contextmanager
    def graph(made, stream):
        Kernels.recording = made
        try:
            yield
        finally:
            Kernels.recording = None

    for name, value in {"Stream": Stream, "current_stream": Stream, "CUDAGraph": Recorded, "graph": graph}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(cuda_graph, "composed", lambda run, then: Kernels(lambda *tensors: then(run.fn(*tensors))))
    monkeypatch.setattr(cuda_graph, "position", lambda device: torch.get_rng_state())
    monkeypatch.setattr(cuda_graph, "set_position", lambda start, device: torch.set_rng_state(start))
    monkeypatch.setattr(cuda_graph, "generator_apart", lambda device: nullcontext())
    monkeypatch.setattr(cuda_graph, "refusing_to_read_back", nullcontext)


def builder(kind=Replay):
    """Records each captured graph as a `kind` of `Replay`."""
    return lambda capture, inputs: kind(Kernels(capture.graph), capture, inputs)

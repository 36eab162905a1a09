"""A compiled step replayed as a CUDA graph: what a replay must get right, on an emulated GPU and a real one."""

import pytest
import torch
from compiled_cases import data, losses, make
from emulated_gpu import Kernels, builder
from training_runs import weights

from pathscore.compiling.compiled_elbo import CompiledELBO, EagerWarning
from pathscore.compiling.cuda_graph import Replay, replayed

CASES = [("normal", None), ("bernoulli", "nvil"), ("bernoulli", "disarm"), ("categorical", "rebar")]


def batches():
    return [data(seed=seed) for seed in range(12)]


@pytest.mark.parametrize(("latent", "estimator"), CASES)
def test_replayed_steps_are_the_eager_ones(gpu, latent, estimator, recwarn):
    particles = 2 if estimator == "nvil" else 1
    eager = make(estimators=estimator, latent=latent, particles=particles)
    ours = make(estimators=estimator, latent=latent, particles=particles, builder=builder())
    assert losses(ours, batches()) == pytest.approx(losses(eager, batches()), rel=1e-4)
    assert not [w for w in recwarn if issubclass(w.category, EagerWarning)]
    assert ours.compiled.built
    for name, value in weights(eager).items():
        torch.testing.assert_close(weights(ours)[name], value, rtol=1e-3, atol=1e-4)


class KeepsFirstBatch(Replay):
    """A fault: the batch is not copied to where the kernels read it."""

    def __call__(self, *tensors):
        return super().__call__(*tensors[: len(self.captured)], *self.inputs)


class MovesState(Replay):
    """A fault: warming up leaves its mark on learned state."""

    def _record(self):
        super()._record()
        for tensor in self.written:
            tensor.add_(1.0)


def test_a_batch_that_stays_behind_is_caught_by_the_check(gpu):
    ours = make(builder=builder(KeepsFirstBatch))
    with pytest.warns(EagerWarning, match="disagree"):
        losses(ours, batches())
    assert not ours.compiled.built


def test_state_that_recording_moves_changes_the_losses(gpu):
    """The comparison with the eager run above can fail."""
    eager, ours = (
        make(estimators="nvil", latent="bernoulli", particles=2, builder=b) for b in (None, builder(MovesState))
    )
    assert weights(ours).keys() == weights(eager).keys()
    losses(ours, batches()), losses(eager, batches())
    assert not all(torch.allclose(weights(ours)[name], value, rtol=1e-3) for name, value in weights(eager).items())


def test_recording_moves_neither_state_nor_stream(gpu):
    svi = make(
        estimators="nvil", latent="bernoulli", builder=lambda capture, inputs: found.append(capture) or capture.graph
    )
    found = []
    losses(svi, batches()[:3])
    (capture,) = found
    before, stream = [t.clone() for t in capture.tensors], torch.get_rng_state()
    replay = Replay(Kernels(capture.graph), capture, [data()])
    assert capture.written and all(map(torch.equal, capture.tensors, before))
    assert torch.equal(torch.get_rng_state(), stream)
    first = replay(*capture.tensors, data(seed=1))
    kept = [t.clone() for t in first]
    replay(*capture.tensors, data(seed=2))
    assert all(map(torch.equal, first, kept))  # results are the caller's own


def test_parameters_in_other_memory_are_recorded_anew(gpu):
    eager, ours = make(), make(builder=builder())
    assert losses(ours, batches()) == pytest.approx(losses(eager, batches()), rel=1e-4)
    for parameter in ours.parameters().values():
        parameter.data = parameter.data.clone()
    assert losses(ours, batches()) == pytest.approx(losses(eager, batches()), rel=1e-4)
    assert ours.compiled.built


def test_what_cannot_be_recorded_is_launched_one_by_one(monkeypatch):
    svi, found = make(builder=lambda capture, inputs: found.append(capture) or capture.graph), []
    losses(svi, batches()[:3])
    with pytest.warns(UserWarning, match=r"one by one: a tensor of shape .* is on the cpu"):
        assert replayed(found[0].graph, found[0], [data()]) is found[0].graph

    def refuse(*_):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr("pathscore.compiling.cuda_graph.Replay", refuse)
    found[0].tensors.clear()
    with pytest.warns(UserWarning, match="one by one: operation not permitted when stream is capturing$"):
        assert replayed(found[0].graph, found[0], []) is found[0].graph


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("latent", "estimator"), CASES)
def test_on_a_gpu(latent, estimator):
    particles = 2 if estimator == "nvil" else 1
    runs = []
    for wrap in (lambda elbo: elbo, CompiledELBO):
        svi = make(estimators=estimator, latent=latent, particles=particles)
        svi.model.cuda(), svi.guide.cuda()
        svi = type(svi)(svi.model, svi.guide, "adam", wrap(svi.elbo), per_datum=True)
        torch.cuda.manual_seed(1)
        runs.append((svi, losses(svi, [batch.cuda() for batch in batches()])))
    assert runs[1][0].compiled.built and not runs[1][0].compiled.refused
    assert runs[1][1] == pytest.approx(runs[0][1], rel=1e-4)

"""A step as one recording, optimiser included, on an emulated GPU: the steps of the optimiser outside, to rounding.

Clipping, a schedule of rates, batches of another size in between (which run eagerly), resuming bit for bit, and steps
that are not finite. Planted: a kernel that moves in spite of them, step counts that are not shared, a rate that stays.
"""

import math

import pytest
import torch
from compiled_cases import data, losses, make
from emulated_gpu import builder
from training_runs import weights

from pathscore.errors import NumericsError
from pathscore.machine import fused, fused_on_device
from pathscore.svi.optimiser import OptimizerSpec
from pathscore.svi.whole_step import WholeStep

CASES = [("normal", None), ("bernoulli", "disarm"), ("bernoulli", "nvil"), ("categorical", "rebar")]
SPECS = [
    OptimizerSpec(lr=0.01, clip_norm=0.5, schedule="cosine", total_steps=20),
    OptimizerSpec("adamw", lr=0.01),
    OptimizerSpec(lr=0.01, clip_norm=1e9),
]


def batches():
    """Of two sizes: the smaller ones get no graph."""
    return [data(5 if seed % 4 == 3 else 8, seed=seed) for seed in range(12)]


def whole(svi) -> list[WholeStep]:
    return [g.whole for g in svi.compiled.built.values() if isinstance(g.whole, WholeStep)]


def both(latent, estimator, spec):
    particles = 2 if estimator == "nvil" else 1
    made = [
        make(estimators=estimator, latent=latent, particles=particles, spec=spec, builder=b) for b in (None, builder())
    ]
    return [(svi, losses(svi, batches())) for svi in made]


def differ(latent, estimator, spec) -> bool:
    (eager, theirs), (ours, found) = both(latent, estimator, spec)
    assert whole(ours)
    close = [torch.allclose(weights(ours)[n], v, rtol=1e-3, atol=1e-4) for n, v in weights(eager).items()]
    return found != pytest.approx(theirs, rel=1e-4) or not all(close)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(("latent", "estimator"), CASES)
def test_the_steps_are_those_of_the_optimiser_outside(gpu, latent, estimator, spec):
    assert not differ(latent, estimator, spec)


def test_counts_that_are_not_shared_are_noticed(gpu, monkeypatch):
    """Planted: an eager step in between counts in tensors of its own, and the recording in those it has."""
    monkeypatch.setattr(fused, "_are_joined", lambda state, name: False)
    monkeypatch.setattr(fused_on_device.DeviceKernel, "is_current", lambda self: True)
    assert differ("normal", None, SPECS[1])


def test_a_rate_that_stays_is_noticed(gpu, monkeypatch):
    fill = fused_on_device.Part.fill
    monkeypatch.setattr(fused_on_device.Part, "fill", lambda self: fill(self) if self.filled != self.filled else None)
    assert differ("normal", None, SPECS[0])


def test_another_optimiser_keeps_its_own_step(gpu):
    (_, theirs), (ours, found) = both("normal", None, OptimizerSpec("sgd", lr=0.001))
    assert not whole(ours) and found == pytest.approx(theirs, rel=1e-4)


def state(svi):
    return {k: v.clone() for k, v in {**svi.parameters(), **torch_state(svi)}.items()}


def torch_state(svi):
    by_name = svi.state_dict()["optim"]["by_name"]
    return {f"{n}.{k}": v for n, saved in by_name.items() for k, v in saved.items() if isinstance(v, torch.Tensor)}


def refused_step():
    """A trained run, its state, and the state after a step on a batch that is not finite."""
    svi = make(builder=builder())
    losses(svi, batches())
    assert whole(svi)
    before, bad = state(svi), data()
    bad[2, 3] = float("nan")
    with pytest.raises(NumericsError, match="step 13"):
        svi.step(bad)
    return svi, before


def test_nothing_moves_in_a_step_that_is_not_finite(gpu):
    svi, before = refused_step()
    after = state(svi)
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert math.isfinite(svi.step(data()))  # and it goes on


def test_a_kernel_that_moves_in_spite_of_it_is_noticed(gpu, monkeypatch):
    call = fused_on_device.DeviceKernel.__call__
    monkeypatch.setattr(
        fused_on_device.DeviceKernel, "__call__", lambda self, g, divisor, bad: call(self, g, divisor, bad * 0)
    )
    svi, before = refused_step()
    assert any(not torch.equal(value, state(svi)[name]) for name, value in before.items())


def test_a_run_resumes_bit_for_bit(gpu):
    straight, first, resumed = (make(builder=builder()) for _ in range(3))
    for svi in (straight, first):
        losses(svi, batches()[:6])
    resumed.load_state_dict(first.state_dict(), data())
    for svi in (straight, resumed):
        losses(svi, batches()[6:])
    assert whole(straight) and whole(resumed)
    assert all(torch.equal(value, state(resumed)[name]) for name, value in state(straight).items())

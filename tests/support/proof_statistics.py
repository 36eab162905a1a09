"""The test of unbiasedness: N independent gradients against the exact one.

Pass rule: max |z| ≤ 4.5 in every coordinate and Hotelling's T² with p ≥ 1e-4 over all of them.  At N = 40 000 the
false-alarm rate of one test is at most P·7e-6 + 1e-4 for P coordinates, and a bias of 6 standard errors — 0.03 standard
deviations of one gradient — is detected with probability above 0.93 in the coordinate it sits in.
Coordinates without variance are compared at 1e-9.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from proof_programs import Program
from scipy.stats import chi2
from torch import Tensor

from pathscore import exact
from pathscore.compiling.compiled_elbo import CompiledELBO
from pathscore.elbos.site import SiteELBO

N = 40_000
MAX_Z, MIN_P = 4.5, 1e-4


@dataclass(frozen=True)
class Verdict:
    """Outcome of the test, with what it could have seen."""

    max_z: float
    p: float
    constant_error: float
    total_variance: float
    detectable_bias: float
    loss: float

    @property
    def passes(self) -> bool:
        return self.max_z <= MAX_Z and self.p >= MIN_P and self.constant_error < 1e-9


def exact_gradient(program: Program) -> Tensor:
    """Exact gradient of the ELBO at one replicate's parameters, flattened."""
    nodes = 40 if program.shape == "mixed" else 64  # per continuous site; at most 2^14 joint states
    grads = exact.gradient(program.model, program.guide, params=program.parameters.values(), nodes=nodes)
    return torch.cat([g.flatten() for g in grads])


def replicate_gradients(program: Program, elbo, warm_up: int = 2) -> tuple[Tensor, float]:
    """(N, P) independent gradients of the ELBO, and its loss, after steps on few replicates that fill averages."""
    stateful = any(True for e in elbo.estimators.values() for _ in e.state_dict())
    few = Program(program.shape, program.family, 1000)
    for _ in range(warm_up * stateful):
        elbo.loss_and_grads(few.model, few.guide)
    if isinstance(elbo, CompiledELBO):  # the first evaluation of a program is eager
        elbo.loss_and_grads(program.model, program.guide)
    for p in program.parameters.values():
        p.grad = None
    loss = elbo.loss_and_grads(program.model, program.guide)
    grads = [-p.grad if p.grad is not None else torch.zeros_like(p) for p in program.parameters.values()]
    return torch.cat([g.reshape(program.replicates, -1) for g in grads], 1), loss


def judge(gradients: Tensor, target: Tensor, loss: float = float("nan")) -> Verdict:
    """Compare the mean of (n, P) gradients with the exact one."""
    n = len(gradients)
    error, spread = gradients.mean(0) - target, gradients.std(0)
    moving = spread > 1e-10
    constant = error[~moving].abs().max().item() if (~moving).any() else 0.0
    if not moving.any():
        return Verdict(0.0, 1.0, constant, 0.0, 0.0, loss)
    standard = spread[moving] / n**0.5
    z = (error[moving] / standard).abs().max().item()
    covariance = torch.cov(gradients[:, moving].T).reshape(int(moving.sum()), -1)
    values, vectors = torch.linalg.eigh(covariance)
    kept = values > 1e-9 * values.max()
    t2 = (n * (vectors.T @ error[moving])[kept].square() / values[kept]).sum().item()
    p = float(chi2.sf(t2, int(kept.sum())))
    return Verdict(z, p, constant, gradients.var(0).sum().item(), 6 * standard.max().item(), loss)


def prove(program: Program, elbo: SiteELBO | CompiledELBO, seed: int = 0, target: Tensor | None = None) -> Verdict:
    """Run the test on a program of N replicates."""
    torch.manual_seed(seed)
    if target is None:
        target = exact_gradient(Program(program.shape, program.family))
    if isinstance(elbo, SiteELBO):
        elbo.prepare(program.model, program.guide)
    gradients, loss = replicate_gradients(program, elbo)
    if program.shape == "masked":  # every other replicate is masked out, and its mean gradient is zero
        hidden = judge(gradients[1::2], torch.zeros_like(target), loss)
        return hidden if not hidden.passes else judge(gradients[::2], target, loss)
    return judge(gradients, target, loss)

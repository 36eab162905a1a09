"""Estimators for Normal sites against the closed form of a linear-Gaussian program, which needs no quadrature.

N = 40 000 copies of the program on a plate, the pass rule of proof_statistics.py. Planted: gradients that are 10 % too
large, and a path that is cut.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from proof_statistics import N, Verdict, judge

from pathscore import exact
from pathscore.elbos.site import SiteELBO
from pathscore.estimators import Pathwise
from pathscore.exact import gaussian

pytestmark = pytest.mark.usefixtures("float64")


class Chain:
    """z1 ~ N(0, 1), z2 ~ N(z1 / 2, 1), x ~ N(z2 + 0.3, 0.8); the guide draws z1, then z2 around 0.4 z1."""

    def __init__(self, copies: int = 1):
        start = {"loc1": 0.3, "log_scale1": -0.4, "loc2": -0.2, "log_scale2": 0.1}
        self.copies = copies
        self.parameters = {name: torch.full((copies,), value, requires_grad=True) for name, value in start.items()}

    def model(self):
        with pyro.plate("copies", self.copies):
            z1 = pyro.sample("z1", dist.Normal(torch.zeros(()), 1.0))
            z2 = pyro.sample("z2", dist.Normal(0.5 * z1, 1.0))
            pyro.sample("x", dist.Normal(z2 + 0.3, 0.8), obs=torch.ones(self.copies))

    def guide(self):
        p = self.parameters
        with pyro.plate("copies", self.copies):
            z1 = pyro.sample("z1", dist.Normal(p["loc1"], p["log_scale1"].exp()))
            pyro.sample("z2", dist.Normal(p["loc2"] + 0.4 * z1, p["log_scale2"].exp()))


def closed_form() -> torch.Tensor:
    """Exact gradient of one copy, (4,)."""
    one = Chain()
    return torch.cat(exact.gradient(one.model, one.guide, params=one.parameters.values(), of=gaussian.elbo))


def verdict(estimator, factor: float = 1.0) -> Verdict:
    """The test of N gradients, each multiplied by a factor."""
    program = Chain(N)
    torch.manual_seed(0)
    SiteELBO({"z*": estimator}, num_particles=2).loss_and_grads(program.model, program.guide)
    gradients = -torch.stack([p.grad for p in program.parameters.values()], 1)
    return judge(factor * gradients, closed_form())


class CutPath(Pathwise):
    """Planted: the draw is detached."""

    def sample(self, fn):
        return fn.rsample().detach(), None


@pytest.mark.parametrize("name", ["pathwise", "stl", "score", "rloo"])
def test_the_mean_gradient_is_that_of_the_closed_form(name):
    found = verdict(name)
    print(f"{name}: N={N}, {found}")
    assert found.passes, found


def test_faults_are_caught():
    assert not verdict("pathwise", factor=1.1).passes
    assert not verdict(CutPath()).passes

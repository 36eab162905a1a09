"""Other names of estimators: the published formula, written down here, is our estimator to rounding."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from pathscore import ESTIMATORS, SVI, make_elbo
from pathscore.estimators import make_estimator
from pathscore.estimators.aliases import ALIASES

LOGITS = torch.tensor([0.3, -0.5, 0.8, 0.1], dtype=torch.float64)
WEIGHTS = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
K = 6


def model():
    z = pyro.sample("z", dist.OneHotCategorical(logits=torch.zeros(4, dtype=torch.float64)))
    pyro.factor("cost", torch.tanh((z * WEIGHTS).sum(-1)))


def guide(logits):
    return lambda: pyro.sample("z", dist.OneHotCategorical(logits=logits))


def ours(name: str, kl: str = "sampled") -> torch.Tensor:
    """The gradient of the ELBO by the logits, of K particles."""
    logits = LOGITS.clone().requires_grad_()
    torch.manual_seed(3)
    make_elbo("trace", name, num_particles=K, max_plate_nesting=0, kl=kl).loss_and_grads(model, guide(logits))
    return -logits.grad


def draws() -> torch.Tensor:
    """The K draws of `ours`, (K, 4)."""
    torch.manual_seed(3)
    with pyro.plate("K", K):
        return guide(LOGITS)()


def vargrad() -> torch.Tensor:
    """−∇ ½ Var(log q − log p) with the sample variance (divisor K − 1), at draws that are held fixed."""
    logits, z = LOGITS.clone().requires_grad_(), draws()
    log_p = dist.OneHotCategorical(logits=torch.zeros_like(LOGITS)).log_prob(z) + torch.tanh((z * WEIGHTS).sum(-1))
    (0.5 * (dist.OneHotCategorical(logits=logits).log_prob(z) - log_p).var()).backward()
    return -logits.grad


def zgr() -> torch.Tensor:
    """½ of straight-through and of (b − π) log π_b, through the cost f alone; π is the softmax of the logits."""
    logits, z = LOGITS.clone().requires_grad_(), draws()
    log_pi = logits.log_softmax(-1)
    soft = (log_pi.exp() + (z - log_pi.exp().detach()) * (z * log_pi).sum(-1, keepdim=True)) / 2
    through = z + soft - soft.detach()
    torch.tanh((through * WEIGHTS).sum(-1)).mean().backward()
    return logits.grad


def reinmax_of_the_cost() -> torch.Tensor:
    """ReinMax through f alone: the KL, summed over the states, has no part that is estimated."""
    logits = LOGITS.clone().requires_grad_()
    total = ours("reinmax", kl="analytic")
    q, p = dist.OneHotCategorical(logits=logits), dist.OneHotCategorical(logits=torch.zeros_like(LOGITS))
    torch.distributions.kl_divergence(q, p).backward()
    return total + logits.grad


def test_vargrad_is_leave_one_out():
    torch.testing.assert_close(ours("rloo"), vargrad(), rtol=1e-10, atol=1e-12)


def test_zgr_is_reinmax():
    torch.testing.assert_close(reinmax_of_the_cost(), zgr(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("formula", [vargrad, zgr])
def test_another_estimator_is_told_apart(formula):
    """Planted: the plain score function, and straight-through without its second half."""
    other = ours("score") if formula is vargrad else ours("st", kl="analytic")
    assert not torch.allclose(other, formula(), rtol=1e-3)


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_is_accepted(alias):
    assert alias not in ESTIMATORS and make_estimator(alias).name == ALIASES[alias]
    assert make_estimator(alias.upper()).name == ALIASES[alias]


def test_options_go_with_an_alias():
    assert make_estimator("gumbel-softmax(temperature=0.3)").name == "gumbel"
    svi = SVI(model, guide(LOGITS.clone().requires_grad_()), "adam", make_elbo("trace", "vargrad", num_particles=2))
    assert "rloo" in repr(svi)

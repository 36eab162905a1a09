"""Quadrature says when it is not exact: densities with a kink between the nodes, too few nodes; and only then."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from pathscore import exact
from pathscore.exact import QuadratureWarning

F64 = torch.float64


def program(fn):
    return lambda: pyro.sample("z", fn)


def pair_of(family, seed):
    """A guide of the family and a Laplace prior with random parameters; minus their divergence; the parameters."""
    x = torch.randn(2, 2, generator=torch.Generator().manual_seed(seed), dtype=F64).requires_grad_()
    q, p = family(x[0, 0], x[0, 1].exp()), dist.Laplace(x[1, 0], x[1, 1].exp())
    return (program(p), program(q)), -kl_divergence(q, p), x


def said(call):
    """What a call returns, and the error that it warned of (0 where it did not)."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", QuadratureWarning)
        found = call()
    return found, max((float(str(w.message).split("about ")[1].split(":")[0]) for w in caught), default=0.0)


def errors_said(family, nodes):
    """(largest error, error that was warned of) of ELBO and gradient for 40 pairs, relative to 1 + the value."""
    found = []
    for seed in range(40):
        pair, right, x = pair_of(family, seed)
        (expected,) = torch.autograd.grad(right, x, retain_graph=True)
        value, warned = said(lambda pair=pair: exact.elbo(*pair, nodes=nodes))
        found.append((abs(value - right).item() / (1 + abs(right).item()), warned))
        (gradient,), warned = said(lambda pair=pair, x=x: exact.gradient(*pair, params=[x], nodes=nodes))
        found.append(((gradient - expected).abs().max().item() / (1 + expected.abs().max().item()), warned))
    return found


@pytest.mark.parametrize("nodes", [16, 64])
def test_a_kink_between_the_nodes_is_reported_with_the_size_of_the_error(nodes):
    """A Normal guide under a Laplace prior: no error above 1e-3 goes unsaid or is above four times what was said."""
    errors = errors_said(dist.Normal, nodes)
    assert max(error for error, _ in errors) > 0.01
    assert all(error <= max(4 * warned, 1e-3) for error, warned in errors), errors


def test_two_laplace_laws_are_split_at_both_kinks():
    """Exact wherever the two kinks lie, where Gauss–Laguerre around the guide's alone is off by per cents."""
    assert max(error for error, _ in errors_said(dist.Laplace, 64)) < 1e-8
    few = errors_said(dist.Laplace, 16)
    assert max(error for error, _ in few) > 1e-4 and all(error <= max(warned, 1e-4) for error, warned in few)


def absolute(x):
    """A decoder with a kink where the guide is smooth."""
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=F64), 1.0))
        pyro.sample("x", dist.Normal(3 * (z - 0.37).abs(), 0.3), obs=x)


def smooth(x):
    """The same without the kink."""
    with pyro.plate("data", len(x), dim=-1):
        z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=F64), 1.0))
        pyro.sample("x", dist.Normal(z - 0.37, 0.8), obs=x)


def guide(x):
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("z", dist.Normal(0.3 * x, 0.8))


@pytest.mark.parametrize("name", ["log_evidence", "posterior", "importance_bound", "elbo"])
def test_every_quantity_is_checked(name):
    x = torch.tensor([0.2, -0.5], dtype=F64)
    options = {"num_particles": 2} if name == "importance_bound" else {}
    with pytest.warns(QuadratureWarning, match=r"quadrature nodes at 'z' are too few, or a density has a kink"):
        getattr(exact, name)(absolute, guide, x, nodes=20, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(exact, name)(smooth, guide, x, nodes=40, **options)
        getattr(exact, name)(absolute, guide, x, nodes=20, check=False, **options)


def test_the_check_leaves_random_numbers_and_a_subsample_alone():
    """The coarser rules see the finer one's subsample, and what is drawn next is what it would have been."""
    x = torch.randn(10, dtype=F64)

    def pair():
        def run(which):
            def go():
                with pyro.plate("data", 10, subsample_size=3, dim=-1) as index:
                    z = pyro.sample("z", dist.Normal(0.2 * x[index], 0.8) if which else dist.Normal(0 * x[index], 1.0))
                    if not which:
                        pyro.sample("x", dist.Normal(z, 1.0), obs=x[index])

            return go

        return run(0), run(1)

    found = []
    for check in (True, False):
        torch.manual_seed(3)
        model, guide_ = pair()
        found.append(torch.stack([exact.elbo(model, guide_, check=check), torch.rand((), dtype=F64)]))
    assert torch.equal(*found)

"""KL terms in closed form beside discrete sites, their weight, and free bits: gradients against exact ones.

N = 40 000 gradients a test, pass rule and power as in test_objectives.py; each rule has a fault that breaks it.
"""

from functools import partial

import pytest
import torch
from objective_cases import Bit, Layers, Subsampled, Weighted
from objective_normals import Chain, Line, Mixed, WeightedLine
from objective_reference import MAX_Z, bound, exact_gradient, sampled_gradients
from proof_statistics import judge

from pathscore.elbos import analytic, make_elbo
from pathscore.elbos.free_bits import FreeBitsELBO
from pathscore.elbos.site import SiteELBO
from pathscore.errors import UsageError

N = 40_000
ELBO = partial(bound, K=1)


def agrees(case, elbo, of=ELBO, seed=0):
    program = case(N)
    elbo.prepare(program.model, program.guide)
    torch.manual_seed(seed)
    gradients, loss = sampled_gradients(program, elbo)
    verdict = judge(gradients, exact_gradient(case(), of), loss)
    assert verdict.passes and verdict.max_z <= MAX_Z, verdict
    return verdict


@pytest.mark.parametrize("case", [Line, WeightedLine, Bit, Weighted, Subsampled, Mixed])
def test_in_closed_form_everywhere(case):
    """Unbiased, the weight on the term and a plate's scale included, and less noisy than the drawn one."""
    analytic, sampled = (agrees(case, SiteELBO(num_particles=2, kl=kl)) for kl in ("analytic", "sampled"))
    assert analytic.total_variance < 0.99 * sampled.total_variance  # from the same draws


@pytest.mark.parametrize("spec", ["b=disarm", "b=enum", "b=rebar", "b=rloo"])
@pytest.mark.parametrize("credit", ["plate", "graph"])
def test_beside_a_discrete_site(spec, credit):
    agrees(Mixed, SiteELBO(spec, num_particles=2, kl="auto", credit=credit))


def analytic_sites(case, kl):
    program = case(3)
    return SiteELBO(kl=kl).prepare(program.model, program.guide).analytic


@pytest.mark.parametrize("case", [Chain, Layers])
def test_auto_draws_where_the_prior_hangs_on_a_later_draw(case):
    """z1's prior is given z2, which the guide draws after z1: only z2's term has a closed form that is right."""
    assert analytic_sites(case, "auto") == {"z2"} and analytic_sites(case, "sampled") == frozenset()
    with pytest.raises(UsageError, match="z1: its prior depends on z2, drawn later by the guide; use --kl auto"):
        analytic_sites(case, "analytic")
    agrees(case, SiteELBO(num_particles=2, kl="auto"))


@pytest.mark.parametrize("case", [Chain, Layers])
def test_what_it_refuses_is_biased(case, monkeypatch):
    monkeypatch.setattr(analytic, "_kl_refusal", lambda *args: None)
    with pytest.raises(AssertionError):
        agrees(case, SiteELBO(num_particles=2, kl="analytic"))


def test_the_factory_takes_kl():
    for name, credit in (("trace", "plate"), ("tracegraph", "graph")):
        elbo = make_elbo(name, num_particles=2, kl="auto")
        assert isinstance(elbo, SiteELBO) and elbo.kl == "auto" and elbo.credit == credit
        assert not isinstance(make_elbo(name, kl="sampled"), SiteELBO)
    with pytest.raises(UsageError, match="unknown --kl 'analitic': did you mean 'analytic'"):
        make_elbo("trace", kl="analitic")
    with pytest.raises(UsageError, match="unknown option of iwae 'kl'"):
        make_elbo("iwae", kl="auto")


def floored(joint, cost):
    """E log p(x | z) − KL, or less `cost` nats in place of the KL."""
    kl = (joint.chance * (joint.log_q - joint.log_prior)).sum()
    return (joint.chance * (joint.log_p - joint.log_prior)).sum() - (kl if cost is None else cost)


@pytest.mark.parametrize("kl", ["auto", "sampled"])
@pytest.mark.parametrize("floor", [1e-4, 5.0])
@pytest.mark.parametrize(("case", "sites"), [(Bit, 1), (Mixed, 3)])
def test_free_bits(case, sites, floor, kl):
    """Above the floor the ELBO, below it the likelihood less λ a site and data point: gradient and loss."""
    of = partial(floored, cost=None if floor < 1 else sites * floor)
    verdict = agrees(case, FreeBitsELBO("b=disarm" if case is Mixed else None, free_bits=floor, kl=kl), of)
    single = case()
    assert -verdict.loss / N == pytest.approx(of(single.joint(single.single())).item(), abs=0.03)


def test_free_bits_by_site():
    """Of two sites only the one below the floor is free: KL of b 0.04, of y 0.12, of n 0.17 nats in `Mixed`."""
    program = Mixed(N)
    elbo = FreeBitsELBO(free_bits=0.08, kl="analytic")
    layout = elbo.prepare(program.model, program.guide)
    _, terms = elbo._run(layout, program.model, program.guide, (), {})
    free = {t.key[1] for t in terms.terms if t.key[0] == "kl" and not t.path.any()}
    assert free == {"b"}


@pytest.mark.parametrize("fault", ["charged", "free"])
def test_a_wrong_floor_is_caught(fault, monkeypatch):
    monkeypatch.setattr(FreeBitsELBO, "_mean_kl", lambda *args: torch.tensor(9.0 if fault == "charged" else -1.0))
    with pytest.raises(AssertionError):
        test_free_bits(Bit, 1, 5.0 if fault == "charged" else 1e-4, "auto")


def test_free_bits_by_name():
    with pytest.raises(UsageError, match="--free-bits must be a number of nats of at least 0, got -1"):
        make_elbo("trace", free_bits=-1.0)
    assert isinstance(make_elbo("tracegraph", free_bits=0.5), FreeBitsELBO)
    assert not isinstance(make_elbo("tracegraph", free_bits=0.0), FreeBitsELBO)

"""Odd inputs give a message, never a crash: in a section of its own, or as a one-line error."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from diagnostics_cases import belief_net, linear_gaussian

from pathscore.diagnostics import DIAGNOSTICS, Effort, examine
from pathscore.diagnostics.page import render
from pathscore.diagnostics.palette import LIGHT, png
from pathscore.errors import UsageError

QUICK = Effort(draws=40, replicates=50, gap_points=5, gap_steps=5, chain_points=1, chain_draws=10, check_draws=9)


def words(sections, drawn=False):
    """Everything that the page says; with `drawn`, after it has been rendered with all of its pictures."""
    if drawn:
        draw(sections)
    return {s.name: " ".join(v.meaning for v in s.verdicts) + " ".join(s.notes) for s in sections}


def draw(sections):
    """Render the page, each picture drawn once."""
    light = {p.name: png(p.draw(LIGHT).figure) for s in sections for p in s.pictures}
    assert "</html>" in render("t", "s", sections, "f", {name: {"light": p, "dark": p} for name, p in light.items()})


def with_effort(**changes):
    return Effort(**{**vars(QUICK), **changes})


def test_one_draw():
    model, guide, x = belief_net(rows=6)
    said = words(examine(model, guide, x, effort=with_effort(draws=1)))
    assert "at least two draws" in said["importance"]
    assert set(said) == set(DIAGNOSTICS)


def test_constant_draws():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Bernoulli(torch.full((2,), 0.5)).to_event(1))
            pyro.sample("x", dist.Bernoulli(0.2 + 0.6 * z).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Bernoulli(torch.ones(2)).to_event(1))

    words(examine(model, guide, torch.ones(5, 2), effort=QUICK), drawn=True)


def test_nan_draws():
    model, _, x = linear_gaussian(0, rows=6)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            mean = torch.where(torch.arange(len(x))[:, None] == 2, torch.nan, 0.0).expand(-1, 3)
            pyro.sample("z", dist.Normal(mean, 1.0).to_event(1))

    with pytest.raises(ValueError, match="Normal got an invalid loc") as error:
        examine(model, guide, x, effort=QUICK)
    assert "\n" not in str(error.value)


def test_a_categorical_site_of_integers():
    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            k = pyro.sample("k", dist.Categorical(torch.ones(3) / 3))
            pyro.sample("x", dist.Normal(k.float(), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("k", dist.Categorical(logits=-((x[:, None] - torch.arange(3.0)) ** 2) / 2))

    sections = examine(model, guide, torch.randn(30) + 1, effort=QUICK)
    said = words(sections)
    assert "NUTS needs continuous latents" in said["chains"]
    verdicts = {v.name: v for s in sections for v in s.verdicts}
    assert verdicts["exact_kl"].status == "good"  # that guide is the exact posterior
    assert verdicts["gap"].status == verdicts["ranks"].status == "good"


def test_a_global_latent():
    def model(x):
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(mean, 1.0).expand([2]).to_event(1), obs=x)

    def guide(x):
        pyro.sample("mean", dist.Normal(x.mean() * 0.9, 0.2))

    said = words(examine(model, guide, torch.randn(8, 2), effort=QUICK))
    (part,) = examine(model, guide, torch.randn(8, 2), effort=QUICK, names=["importance"])
    assert "one weight per draw for the whole data set" in part.intro
    assert "mean are not: compare them with MCMC" in said["calibration"]
    assert "all data points share a latent" in said["gaps"]
    assert "none in a plate" in said["latent"]


def test_one_data_point():
    model, guide, x = linear_gaussian(0, rows=1)
    words(examine(model, guide, x, effort=QUICK), drawn=True)


def test_no_latent_in_the_guide():
    model, _, x = linear_gaussian(0, rows=4)
    with pytest.raises(UsageError, match="the guide does not draw 'z' of the model"):
        examine(model, lambda x: None, x, effort=QUICK)


def test_a_model_that_fails_inside_one_check_keeps_the_others():
    model, guide, x = linear_gaussian(0, rows=6)

    def moody(x):
        if not torch.equal(x, x.round(decimals=8)) and len(x) == 5:  # only the re-optimised subset has five rows
            raise RuntimeError("no five rows")
        return model(x)

    found = {s.name: s for s in examine(moody, guide, x, effort=QUICK)}
    assert found["gaps"].verdicts[0].status == "unknown" and "no five rows" in found["gaps"].verdicts[0].meaning
    assert found["importance"].numbers and found["calibration"].numbers
    with pytest.raises(UsageError, match=r"5 of the 6 rows of plate 'data' \(RuntimeError: no five rows\)"):
        examine(moody, guide, x, effort=QUICK, names=["gaps"], strict=True)


def test_unknown_names_and_settings_are_refused_with_the_nearest():
    model, guide, x = belief_net(rows=4)
    with pytest.raises(UsageError, match="unknown diagnostic 'importence': did you mean 'importance'"):
        examine(model, guide, x, names=["importence"], effort=QUICK)
    with pytest.raises(UsageError, match="unknown diagnosis setting 'drawz': did you mean 'draws'"):
        Effort().with_(drawz=3)
    with pytest.raises(UsageError, match="points=0: must be at least 1"):
        Effort().with_(points=0)

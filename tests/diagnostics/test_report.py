"""The report of any program: a sequence of sections, a page, a table; in words without the command line's flags."""

import re
from functools import partial

import pandas
import pyro
import pyro.distributions as dist
import pytest
import torch
from diagnostics_cases import belief_net, linear_gaussian

from pathscore.diagnostics import DIAGNOSTICS, Effort, Report, examine
from pathscore.diagnostics.palette import LIGHT
from pathscore.diagnostics.rules import RULES
from pathscore.diagnostics.subject import Section
from pathscore.diagnostics.verdicts import judge, not_computed
from pathscore.errors import RunDirError

QUICK = Effort(
    points=40, draws=60, check_draws=19, replicates=60, rank_draws=19, gap_points=4, gap_steps=5, chain_points=0
)
FLAG = r"(?<![\w-])--[a-z]"


def regression(c, y):
    slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
    with pyro.plate("rows", len(c)):
        pyro.sample("y", dist.Normal(slope * c, 0.5), obs=y)


def guide_of_slope(shift=0.0, scale=1.0):
    def guide(c, y):
        precision = 1 + 4 * (c * c).sum()
        pyro.sample("slope", dist.Normal(4 * (c * y).sum() / precision + shift, scale * precision**-0.5))

    return guide


def rows(seed=0, count=40):
    generator = torch.Generator().manual_seed(seed)
    c = torch.linspace(-1, 1, count)
    return c, 0.7 * c + 0.5 * torch.randn(count, generator=generator)


@pytest.fixture(scope="module")
def local():
    model, guide, x = belief_net(rows=40)
    return examine(model, guide, x, effort=QUICK)


@pytest.fixture(scope="module")
def joint():
    return examine(regression, guide_of_slope(), rows(), effort=QUICK)


def text_of(page):
    """What a reader sees: without pictures and style."""
    return re.sub(r"<style>.*?</style>|base64,[A-Za-z0-9+/=]+|<[^>]*>", " ", page, flags=re.S)


def test_a_report_is_the_list_that_it_was(local):
    assert [s.name for s in local] == list(DIAGNOSTICS) and len(local) == len(DIAGNOSTICS)
    assert local[0] is local["importance"] and local[-1] is local["samples"]
    assert local[:2] == (local[0], local[1]) and local[1] in local
    with pytest.raises(KeyError, match="'gapz' was not examined: importance, gaps"):
        local["gapz"]


def test_its_text_is_a_line_for_each_verdict(local, joint):
    for report in (local, joint):
        lines = str(report).splitlines()
        assert len(lines) == 1 + len(report.verdicts) and repr(report) == str(report)
        assert lines[0] == report.title and max(map(len, lines)) < 260


def test_it_is_ok_where_something_is_judged_and_nothing_flagged(joint):
    assert joint.ok and not examine(regression, guide_of_slope(0.5), rows(), effort=QUICK).ok
    assert not Report((Section("a", "A", "", [not_computed("gap", "Gap", "no")]),)).ok


def test_the_page_is_written_and_shown(local, tmp_path):
    path = local.save(tmp_path / "é.html")
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert local._repr_html_().startswith('<iframe srcdoc="&lt;!DOCTYPE html&gt;')
    with pytest.raises(RunDirError, match="cannot write"):
        local.save(tmp_path / "nowhere" / "report.html")


def test_a_row_for_each_verdict(local):
    table = local.to_dataframe()
    assert isinstance(table, pandas.DataFrame) and len(table) == len(local.verdicts)
    gap = table[table.name == "gap"].iloc[0]
    assert gap.section == "importance" and gap.value.startswith(f"{gap.number:.2f} nat")


@pytest.mark.parametrize("which", ["local", "joint"])
def test_an_own_program_is_told_nothing_of_flags_files_and_pixels(which, request):
    text = text_of(request.getfixturevalue(which).html())
    assert len(text) > 2000
    assert not re.search(FLAG, text), re.search(FLAG, text)
    assert not re.search(r"posterior\.nc|pixel|held-out|decoder|encoder", text)


def test_every_advice_has_words_of_its_own_for_a_run_and_for_a_program():
    """Over all rules and outcomes: no flag outside of `flags`, which a program in Python does not see."""
    for name, rule in RULES.items():
        texts = (rule.title, rule.good, rule.watch, rule.bad, rule.try_next, rule.try_if_bad, rule.python)
        assert not re.search(FLAG + r"|posterior\.nc|pixel", " ".join(texts)), name
        verdict = judge(name, 0.0 if not rule.rising else 1e9)
        assert verdict.flags == rule.flags and verdict.python == rule.python


def test_a_joint_posterior_has_figures_of_its_own(joint):
    assert [p.name for p in joint["importance"].pictures] == ["weights", "global"]
    assert [p.name for p in joint["predictive"].pictures] == ["summaries-y"]
    assert [v.name for v in joint.verdicts if v.status != "unknown"] == [
        *("joint_gap", "joint_ess", "joint_khat", "exact_kl", "ppc", "loo")
    ]
    text = " ".join(f"{v.title} {v.value} {v.meaning}" for v in joint.verdicts if v.status != "unknown")
    assert "data point" not in text


def test_leave_one_out_agrees_with_the_exact_figure():
    """Each p(y_n | y_−n) of the conjugate regression is known. 2 000 draws: the Monte Carlo error is below 0.05 nat."""
    c, y = rows()
    effort = Effort(draws=2000)
    (found,) = examine(regression, guide_of_slope(), (c, y), names=["loo"], effort=effort, strict=True)
    exact = 0.0
    for n in range(len(c)):
        others = torch.arange(len(c)) != n
        precision = 1 + 4 * (c[others] ** 2).sum()
        mean = 4 * (c[others] * y[others]).sum() / precision
        exact += dist.Normal(mean * c[n], (0.25 + c[n] ** 2 / precision) ** 0.5).log_prob(y[n]).item()
    assert found.numbers["y"]["elpd"] == pytest.approx(exact, abs=0.05)
    # The planted fault: without the correction for the guide, one that is too wide gives another figure.
    (wide,) = examine(regression, guide_of_slope(scale=2.0), (c, y), names=["loo"], effort=effort, strict=True)
    assert wide.numbers["y"]["elpd"] == pytest.approx(exact, abs=0.1)


def test_leave_one_out_is_for_global_latents(local):
    assert "z" in local["loo"].verdicts[0].meaning and local["loo"].verdicts[0].status == "unknown"


def layered(x, unused):
    with pyro.plate("data", len(x)):
        z2 = pyro.sample("z2", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        z1 = pyro.sample("z1", dist.Normal(z2 * (not unused), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z1, 0.1).to_event(1), obs=x)


def guide_of_layers(x, unused):
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Normal(x, 0.1).to_event(1))
        pyro.sample("z2", dist.Normal(z1 / 2 * (not unused), 0.7 + 0.3 * unused).to_event(1))


@pytest.mark.parametrize("unused", [False, True])
def test_active_units_are_judged_in_the_layer_that_has_the_least(unused):
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)) * 1.4
    pair = (partial(program, unused=unused) for program in (layered, guide_of_layers))
    report = examine(*pair, x, names=["latent"], effort=Effort(draws=20), strict=True)
    verdict = next(v for v in report.verdicts if v.name == "active")
    assert verdict.status == ("bad" if unused else "good")
    assert (verdict.value == "0% in z2 (z2 0 of 2, z1 2 of 2; z2 is unused)") == unused
    assert "contribution to the rate" in report[0].tables[0].header[2] and "may be negative" in report[0].notes[0]
    labels = [p.draw(LIGHT).get_ylabel() for p in report[0].pictures if p.name.startswith("rate-")]
    assert labels == ["contribution to the rate (nat)"] * 2


def test_one_layer_has_a_kl_of_its_own():
    model, guide, x = linear_gaussian(0, rows=60)
    (found,) = examine(model, guide, x, names=["latent"], effort=Effort(draws=20), strict=True)
    assert found.tables[0].header[2] == "rate (nat)" and not found.notes


def test_errors_say_what_they_are_over():
    model, guide, x = linear_gaussian(0, rows=30)
    report = examine(model, guide, x, names=["importance", "gaps"], effort=QUICK, strict=True)
    for name in ("gap", "amortisation", "approximation"):
        (value,) = [v.value for v in report.verdicts if v.name == name]
        assert re.search(r"± \d+\.\d+ over data points, ± \d+\.\d+ Monte Carlo", value), value
    assert [t.header[2] for s in report for t in s.tables] == ["± s.e. over data points"] * 2

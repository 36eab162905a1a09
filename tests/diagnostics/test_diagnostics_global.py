"""`examine` on programs with global latents, and with data that are not the first argument."""

import pyro
import pyro.distributions as dist
import torch

from pathscore.diagnostics import examine
from pathscore.diagnostics.calibration import calibrate
from pathscore.diagnostics.layout import describe
from pathscore.diagnostics.reliability import reliability
from pathscore.diagnostics.rows import data_index, with_data
from pathscore.diagnostics.subject import Effort

QUICK = Effort(
    points=6, draws=60, check_draws=9, replicates=40, rank_draws=9, gap_points=2, gap_steps=5, chain_points=0
)
C, X = torch.linspace(-1, 1, 8), torch.tensor([0.3, -1.0, 0.8, 2.0, -0.4, 0.0, 1.1, -2.2])


def shifted(c, x):
    """Latents local to each data point; the data are the second argument, the covariates the first."""
    with pyro.plate("data", len(c)):
        z = pyro.sample("z", dist.Normal(c, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def posterior(c, x):
    with pyro.plate("data", len(c)):
        pyro.sample("z", dist.Normal((c + x) / 2, 0.5**0.5))


def test_the_data_may_be_any_argument():
    layout = describe(shifted, posterior, (C, X))
    assert data_index(layout, (C, X), "x") == 1
    assert torch.equal(with_data(layout, (C, X), {"x": X + 1})[1], X + 1)
    found = calibrate(shifted, posterior, (C, X), replicates=400, draws=19, seed=0)
    assert found.uniformity()[0] > 1e-3  # the guide is the posterior
    wrong = calibrate(shifted, lambda c, x: posterior(c, x + 1), (C, X), replicates=400, draws=19, seed=0)
    assert wrong.uniformity()[0] < 1e-3


def test_reliability_of_labels():
    y = (X > 0).float()

    def model(c, y):
        with pyro.plate("data", len(c)):
            z = pyro.sample("z", dist.Normal(c, 1.0))
            pyro.sample("y", dist.Bernoulli(logits=z).expand([len(c)]), obs=y)

    assert reliability(model, posterior, (C, y), draws=4, data_sets=3, seed=0).error >= 0


def regression(c, x):
    w = pyro.sample("w", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(c)):
        pyro.sample("x", dist.Normal(w * c, 1.0), obs=x)


def guide_of_w(scale):
    precision = 1 + (C * C).sum()
    mean = (C * X).sum() / precision

    def guide(c, x):
        pyro.sample("w", dist.Normal(mean, scale * precision**-0.5))

    return guide


def test_one_joint_weight_is_judged_in_words_of_its_own():
    (good,) = examine(regression, guide_of_w(1.0), (C, X), names=["importance"], effort=QUICK)
    (bad,) = examine(regression, guide_of_w(0.1), (C, X), names=["importance"], effort=QUICK)
    assert [v.name for v in good.verdicts][:2] == ["joint_gap", "joint_ess"]
    assert good.verdicts[0].status == good.verdicts[1].status == "good" and "bad" in {v.status for v in bad.verdicts}
    text = " ".join([good.intro, *(f"{v.title} {v.meaning} {v.value}" for v in (*good.verdicts, *bad.verdicts))])
    assert "data point" not in text and "%" not in text
    assert good.tables[0].header[0] == "nats, the whole data set"


def test_reasons_are_one_short_line():
    found = examine(regression, guide_of_w(1.0), (C, X), effort=QUICK)
    for verdict in (v for section in found for v in section.verdicts if v.status == "unknown"):
        assert "\n" not in verdict.meaning and len(verdict.meaning) < 260 and "Trace Shapes" not in verdict.meaning

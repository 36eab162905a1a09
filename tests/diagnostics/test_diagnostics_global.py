"""`examine` on programs with global latents, and with data that are not the first argument."""

import pyro
import pyro.distributions as dist
import torch

from pathscore.diagnostics import examine
from pathscore.diagnostics.calibration import calibrate
from pathscore.diagnostics.layout import describe
from pathscore.diagnostics.reliability import reliability
from pathscore.diagnostics.rows import data_places, with_data
from pathscore.diagnostics.subject import Effort
from pathscore.errors import UsageError

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
    assert data_places(layout, (C, X))["x"].index == 1
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


def walk(x):
    """A sequence for each row: z_t follows z_t−1, and x[:, t] is z_t with noise."""
    with pyro.plate("rows", len(x)):
        z = torch.zeros(len(x))
        for t in range(x.shape[1]):
            z = pyro.sample(f"z_{t}", dist.Normal(z, 1.0))
            pyro.sample(f"x_{t}", dist.Normal(z, 1.0), obs=x[:, t])


def smoother(x, shift=0.0):
    """The posterior of two steps: precision [[3, −1], [−1, 2]], z_0 first, then z_1 given it."""
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z_0", dist.Normal((2 * x[:, 0] + x[:, 1]) / 5 + shift, 0.4**0.5))
        pyro.sample("z_1", dist.Normal((z + x[:, 1]) / 2, 0.5**0.5))


def test_the_steps_of_a_sequence_are_slices_of_the_data():
    """N = 1 000 ranks of four: false-alarm rate 0.1 %; a shift of half a standard deviation is found."""
    x = torch.randn(50, 2)
    places = data_places(describe(walk, smoother, (x,)), (x,))
    assert [(p.index, p.dim, p.at) for p in places.values()] == [(0, 1, 0), (0, 1, 1)]
    found = calibrate(walk, smoother, (x,), replicates=1000, draws=19, seed=0)
    assert found.uniformity()[0] > 1e-3
    wrong = calibrate(walk, lambda x: smoother(x, 0.3), (x,), replicates=1000, draws=19, seed=0)
    assert wrong.uniformity()[0] < 1e-3
    alike = torch.ones(4, 2)  # equal values: each site has a slice of its own
    assert len(set(data_places(describe(walk, smoother, (alike,)), (alike,)).values())) == 2


def test_a_trace_that_pyro_adds_to_an_error_is_left_out():
    error = UsageError("put it there\n           Trace Shapes:  \n            Param Sites:  \n data dist 3")
    assert str(error) == "put it there"


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

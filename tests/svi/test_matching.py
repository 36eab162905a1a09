"""Model and guide that do not fit each other are refused in the first step, under every objective and by name."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceGraph_ELBO

from pathscore import SVI, make_elbo
from pathscore.errors import UsageError
from pathscore.programs.broadcasting import BroadcastingWarning

SAMPLING = [("trace", None), ("trace", "score"), ("tracegraph", None), ("tracegraph", "score"), ("iwae", None)]
SAMPLING += [("renyi", None), ("vimco", "score")]


def refused(model, guide, message, elbo, spec=None):
    objective = make_elbo(elbo, spec, num_particles=2) if isinstance(elbo, str) else elbo
    with pytest.raises(UsageError, match=message):
        SVI(model, guide, "adam", objective).step(torch.tensor([0.5, 1.0]))


def model(x):
    m = pyro.sample("m", dist.Normal(0.0, 1.0))
    with pyro.plate("d", 2):
        b = pyro.sample("b", dist.Bernoulli(0.5))
        pyro.sample("x", dist.Normal(m + b, 1.0), obs=x)


def guide(x):
    pyro.sample("m", dist.Normal(pyro.param("l", torch.tensor(0.3)), 1.0))


@pytest.mark.parametrize(("elbo", "spec"), SAMPLING)
def test_a_site_of_the_model_alone(elbo, spec):
    if elbo != "renyi":  # refuses the discrete site by itself
        refused(model, guide, "the guide does not draw 'b' of the model.*--elbo enum", elbo, spec)


@pytest.mark.parametrize("cls", [Trace_ELBO, TraceGraph_ELBO])
def test_pyros_own_classes_too(cls):
    refused(model, guide, "the guide does not draw 'b'", cls(max_plate_nesting=1))


def test_enum_sums_it_out_without_a_mark():
    """log p(x | m) of the mixture, at the guide's draw: the same loss as the model with the sum written out."""

    def summed(x):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("d", 2):
            mix = dist.Categorical(torch.ones(2, 2))
            parts = dist.Normal(torch.stack([m, m + 1]).expand(2, 2), 1.0)
            pyro.sample("x", dist.MixtureSameFamily(mix, parts), obs=x)

    losses = []
    for program in (model, summed):
        torch.manual_seed(0)
        svi = SVI(program, guide, "adam", make_elbo("enum") if program is model else make_elbo("trace"))
        losses.append(svi.step(torch.tensor([0.5, 1.0])))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_continuous_site_cannot_be_summed_out():
    def other(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))
        model(x)

    refused(other, guide, "the guide does not draw 'w' of the model", "enum")


@pytest.mark.parametrize(("elbo", "spec"), [("trace", None), ("trace", "score"), ("iwae", None)])
def test_a_site_of_the_guide_alone(elbo, spec):
    def plain(x):
        m = pyro.sample("m", dist.Normal(0.0, 1.0))
        with pyro.plate("d", 2):
            pyro.sample("x", dist.Normal(m, 1.0), obs=x)

    def extra(x):
        guide(x)
        pyro.sample("mm", dist.Normal(0.0, 1.0))

    def auxiliary(x):
        guide(x)
        pyro.sample("mm", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})

    with pytest.raises((UsageError, UserWarning), match="mm"):
        SVI(plain, extra, "adam", make_elbo(elbo, spec, num_particles=2)).step(torch.zeros(2))
    SVI(plain, auxiliary, "adam", make_elbo(elbo, spec)).step(torch.zeros(2))


@pytest.mark.parametrize(
    ("elbo", "spec"), [("trace", None), ("trace", "score"), ("tracegraph", None), ("iwae", "score")]
)
def test_a_discrete_guide_under_a_continuous_prior(elbo, spec):
    def normal(x):
        with pyro.plate("d", 2):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def bits(x):
        with pyro.plate("d", 2):
            pyro.sample("z", dist.Bernoulli(logits=pyro.param("l", torch.zeros(2))))

    refused(normal, bits, "site 'z' is Bernoulli in the guide and Normal in the model", elbo, spec)


def test_a_program_that_is_not_written_for_particles_is_named_with_its_shape():
    x, y = torch.randn(6, 3), torch.randn(6)

    def line(x, y):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 2.0).to_event(1))
        with pyro.plate("d", len(x)):
            mean = (x * w.unsqueeze(-2) if w.dim() > 1 else x * w).sum(-1)
            pyro.sample("y", dist.Normal(mean, 0.1), obs=y)

    def weights(x, y):
        pyro.sample("w", dist.Normal(pyro.param("l", torch.zeros(3)), 1.0).to_event(1))

    for elbo in ("trace", "tracegraph", "iwae"):
        objective = make_elbo(elbo, "pathwise", num_particles=2, vectorize_particles=True)
        with pytest.raises(UsageError, match=r"site 'y' has log-probabilities of shape \(2, 2, 6\).*broadcasts over"):
            SVI(line, weights, "adam", objective).step(x, y)
        with pytest.warns(BroadcastingWarning, match=r"site 'y' has log-probabilities of shape \(2, 2, 6\)"):
            SVI(line, weights, "adam", make_elbo(elbo, "pathwise", num_particles=2)).step(x, y)
    SVI(line, weights, "adam", make_elbo("trace", "pathwise")).step(x, y)

"""What the objectives with importance weights refuse by name, and what they accept that looks like it."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from objective_cases import Bit, Global, Layers
from objective_normals import Line, Mixed
from pyro import poutine
from pyro.distributions.testing.rejection_gamma import ShapeAugmentedGamma

from models.latents import latent_layers
from pathscore.command import cli
from pathscore.elbos import ELBOS, make_elbo, refusal
from pathscore.elbos.dreg import DReG
from pathscore.elbos.importance import ImportanceELBO
from pathscore.elbos.vimco import VIMCO
from pathscore.errors import UsageError
from pathscore.estimators import LeaveOneOut, Score


def refused(elbo, model, guide, message, *args):
    with pytest.raises(UsageError, match=message) as error:
        elbo.loss(model, guide, *args)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("make", [ImportanceELBO, VIMCO])
@pytest.mark.parametrize("estimator", ["rloo", Score(LeaveOneOut())])
def test_baselines_that_compare_particles(make, estimator):
    case = Bit(2)
    remedy = "score has the leave-one-out signal" if make is VIMCO else "use --elbo vimco"
    refused(make(estimator, num_particles=2), case.model, case.guide, f"site 'z': .*compares particles' .*{remedy}")


def test_the_legal_list_leaves_them_out():
    case = Bit(2)
    with pytest.raises(UsageError) as error:
        ImportanceELBO("rloo", num_particles=2).loss(case.model, case.guide)
    legal = str(error.value).split("legal here: ")[1].split(", ")
    assert "disarm" in legal and "score" in legal and not {"rloo", "stl"} & set(legal)
    for name in legal:
        ImportanceELBO(name, num_particles=2).loss_and_grads(case.model, case.guide)


@pytest.mark.parametrize("make", [ImportanceELBO, VIMCO, DReG])
def test_sticking_the_landing(make):
    case = Line(2)
    refused(make("stl", num_particles=2), case.model, case.guide, "stl is biased under importance weights; --elbo dreg")


def test_auto_finds_a_legal_one():
    """Poisson: neither pathwise, enumerable nor antithetic, and leave-one-out is refused."""

    def program():
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Poisson(torch.full((3,), 2.0)))
        return z

    def model():
        with pyro.plate("data", 3):
            pyro.sample("x", dist.Normal(pyro.sample("z", dist.Poisson(1.0)), 1.0), obs=torch.zeros(3))

    plan = VIMCO("auto", num_particles=3).prepare(model, program)
    assert plan.sites["z"].estimator.name == "score-avg"


def with_global(subsample_size=None):
    def guide():
        pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 6, subsample_size=subsample_size):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    def model():
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", 6, subsample_size=subsample_size) as index:
            pyro.sample("x", dist.Normal(w + pyro.sample("z", dist.Normal(0.0, 1.0)), 1.0), obs=torch.ones(6)[index])

    return model, guide


def test_a_global_latent_with_a_subsampled_plate():
    message = "lies in plate 'data', of which 3 of 6 members are drawn, .*over the whole program.*drop subsample_size"
    refused(ImportanceELBO(num_particles=2), *with_global(3), message)
    plan = ImportanceELBO(num_particles=2).prepare(*with_global())
    assert plan.weight_plates == frozenset()


def test_a_subsampled_plate_inside_a_datum():
    def guide():
        with pyro.plate("data", 2, dim=-2):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    def model():
        with pyro.plate("data", 2, dim=-2):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            with pyro.plate("pixels", 6, subsample_size=3, dim=-1):
                pyro.sample("x", dist.Normal(z, 1.0), obs=torch.zeros(2, 3))

    refused(ImportanceELBO(num_particles=2), model, guide, "lies in plate 'pixels', .*per member of 'data'")


def test_an_observation_that_ties_the_data_together():
    """Latents in the plate, a sum of them observed outside: one weight for all, as for a global latent."""

    def guide():
        with pyro.plate("data", 3):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    def model():
        with pyro.plate("data", 3):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0), obs=torch.tensor([1.0]))

    elbo = ImportanceELBO(num_particles=20_000, max_plate_nesting=1)
    assert elbo.prepare(model, guide).weight_plates == frozenset()
    evidence = dist.Normal(0.0, 2.0).log_prob(torch.tensor(1.0)).item()
    assert -elbo.loss(model, guide) == pytest.approx(evidence, abs=0.05)


def test_a_point_mass_is_a_parameter():
    """MAP of a global beside local latents: weights per data point, subsampled too, log p(w) added once."""

    def guide():
        pyro.sample("w", dist.Delta(pyro.param("loc", torch.tensor(0.3))))
        with pyro.plate("data", 6, subsample_size=3):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    model = with_global(3)[0]
    for elbo in (ImportanceELBO(num_particles=5000), DReG(num_particles=5000)):
        assert elbo.prepare(model, guide).weight_plates == {"data"}
        value = -elbo.loss_and_grads(model, guide)
        expected = dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.3)) + 6 * dist.Normal(0.3, 2**0.5).log_prob(
            torch.tensor(1.0)
        )
        assert value == pytest.approx(expected.item(), abs=0.15)
        slope = pyro.get_param_store()._params["loc"].grad
        assert slope.item() == pytest.approx(0.3 - 6 * (1.0 - 0.3) / 2, abs=0.15)  # of the loss
        pyro.clear_param_store()


def test_a_term_without_latents_outside_the_plate_is_added():
    case, constant = Bit(4), torch.tensor(0.7, dtype=torch.float64)

    def model():
        case.model()
        pyro.factor("penalty", -constant)

    losses = []
    for program in (case.model, model):
        torch.manual_seed(0)
        elbo = VIMCO(num_particles=3)
        losses.append(elbo.loss_and_grads(program, case.guide))
        assert elbo.prepare(program, case.guide).weight_plates == {"copies"}
    assert losses[1] - losses[0] == pytest.approx(0.7)


def test_a_rescaled_observation():
    case = Bit(2)
    scaled = poutine.scale(case.model, scale=0.1)
    refused(ImportanceELBO(num_particles=2), scaled, case.guide, "observed site 'x' is rescaled by poutine.scale")


@pytest.mark.parametrize("estimator", ["enum", "local", "measure-valued"])
def test_one_at_a_time_under_weights_that_span_a_plate(estimator):
    case = Global(2)
    message = f"site 'z': {estimator} varies one member of plate 'data' at a time, .*per member of 'copies'"
    refused(VIMCO({"z": estimator}, num_particles=2), case.model, case.guide, message)


def test_dreg_without_a_path():
    refused(DReG(num_particles=2), Bit(2).model, Bit(2).guide, "there is none .z.: use --elbo vimco")
    case = Mixed(2)
    assert DReG(num_particles=2).loss_and_grads(case.model, case.guide)
    assert "no path: use vimco" in refusal("dreg", latent_layers("bernoulli", (16,)), particles=5)


def test_dreg_with_half_a_path():
    """A sampler that rejects is differentiated along its path in part only."""
    shape = torch.tensor([2.0, 3.0], requires_grad=True)

    def guide():
        with pyro.plate("data", 2):
            pyro.sample("z", ShapeAugmentedGamma(shape, torch.ones(2)))

    def model():
        with pyro.plate("data", 2):
            pyro.sample("z", dist.Gamma(2.0, 1.0))

    with pytest.raises(UsageError, match="--elbo dreg: the path of site 'z' misses a part"):
        DReG(num_particles=2).loss_and_grads(model, guide)


@pytest.mark.parametrize("name", ["vimco", "ovis", "wake-sleep"])
def test_too_few_particles(name):
    with pytest.raises(UsageError, match=f"--elbo {name}: it needs --particles of at least 2, got 1"):
        make_elbo(name)


def test_options():
    with pytest.raises(UsageError, match="--alpha 1 is the ELBO: use --elbo trace"):
        make_elbo("vr", alpha=1.0)
    with pytest.raises(UsageError, match="unknown fill 'geometrik': did you mean 'geometric'"):
        make_elbo("vimco", num_particles=2, fill="geometrik")
    assert make_elbo("vr", alpha=0.5).order == 0.5 and make_elbo("dreg", alpha=0.5).order == 0.5
    assert make_elbo("ovis", num_particles=2).fill == "none"


def test_stock_refusals_point_to_them():
    for entry, right in (("renyi", "vr, iwae or vimco"), ("rws", "wake-sleep")):
        why = refusal(entry, latent_layers("bernoulli", (16,)), batch_size=64, particles=5)
        assert right in why and all(name in why for name in ("iwae", "vimco", "wake-sleep"))
    assert {"iwae", "vimco", "ovis", "dreg", "vr", "wake-sleep"} <= set(ELBOS)


def test_explain_names_the_estimators():
    case = Layers(2)
    text = VIMCO("z1=disarm,z2=score", num_particles=5).explain(case.model, case.guide)
    assert "z1" in text and "disarm" in text and "score" in text
    assert (
        "5 particles + 5 counterfactual rows = 10" in text
        and "importance weights formed per member of 'copies'" in text
    )


IDLE = {
    "--alpha 0.5 --elbo trace": "--alpha has no effect under --elbo trace: it belongs to renyi, dreg, vr",
    "--kl auto --elbo iwae": "--kl has no effect under --elbo iwae: it belongs to trace, tracegraph",
    "--fill none --elbo ovis": "--fill has no effect under --elbo ovis: it belongs to vimco",
    "--insomnia 0.5 --elbo vimco": "--insomnia has no effect under --elbo vimco: it belongs to wake-sleep",
    "--free-bits 1 --elbo dreg": "--free-bits has no effect under --elbo dreg: it belongs to trace, tracegraph",
    "--elbo vimco --estimator rloo --latent bernoulli": "rloo compares particles' costs",
    "--elbo wake-sleep --estimator score": "--elbo wake-sleep takes no --estimator",
    "--elbo trace --kl analytic --layers 4,4": "z1: its prior depends on z2, drawn later by the guide",
}


@pytest.mark.parametrize("words", IDLE)
def test_the_command_line_refuses(words, tmp_path, capsys):
    assert cli.main(["train", *words.split(), "--steps", "1", "--quiet", "--out", str(tmp_path / "run")]) == 2
    assert IDLE[words] in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "--elbo vimco --fill arithmetic --latent bernoulli --layers 5,4 --estimator z1=disarm,z2=score",
        "--elbo trace --kl auto --free-bits 0.5 --layers 5,4 --latent bernoulli --estimator disarm",
        "--elbo wake-sleep --insomnia 0.5 --latent categorical --kl-weight 0.5",
        "--elbo dreg --alpha 0.5 --particles 8",
    ],
)
def test_the_command_line_trains(words, tmp_path, capsys):
    short = ["--steps", "2", "--eval-samples", "4", "--hidden", "8", "--quiet", "--out", str(tmp_path / "run")]
    assert cli.main(["train", *words.split(), *short]) == 0, capsys.readouterr().err

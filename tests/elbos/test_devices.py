"""Tensors that the engine makes follow the program's device, as far as this can be seen without a GPU.

Everything runs on torch's "meta" device, whose tensors have shapes and no values: an operation with a tensor of the
processor's memory among them fails, as on a GPU (a number, a tensor without dimensions, may be on either). Forward and
backward passes are walked: objectives × estimators × latents, two layers, programs of one's own. What it cannot see:
operations that read a value, and products and gathers, where "meta" does not look at devices; `tests/gpu` runs all.
"""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch.distributions import constraints

from guides import AmortizedGuide
from models import LATENTS, VAE
from pathscore import ELBOS, ESTIMATORS, make_elbo
from pathscore.elbos.weights import WeightedTerms
from pathscore.errors import UsageError

OURS = [name for name, entry in ELBOS.items() if entry.credit or name == "wake-sleep"]


def step(program, elbo, spec, particles):
    """One forward and backward pass of a program on "meta", planned on the CPU; the gradients that arrive."""
    model, guide, args = program()
    objective = make_elbo(elbo, spec, num_particles=max(particles, ELBOS[elbo].min_particles))
    if not hasattr(objective, "prepare"):
        objective = make_elbo(elbo, "score" if spec is None else spec, num_particles=max(particles, 2))
    with pyro.get_param_store().scope():
        objective.prepare(model, guide, *args)
    modules = [m for m in (model, guide, objective.estimators) if isinstance(m, torch.nn.Module)]
    for module in modules:
        module.to("meta")
    args = tuple(t.to("meta") for t in args)
    with pyro.get_param_store().scope(), pyro.validation_enabled(False):
        _, surrogate = objective.loss_and_surrogate(model, guide, args, {})
        if surrogate.requires_grad:
            surrogate.backward()
    return [p.grad for m in modules for p in m.parameters() if p.grad is not None]


def vae(latent, layers=(3,)):
    def program():
        torch.manual_seed(0)
        sizes = {"data_size": 6, "latent": latent, "layers": layers, "hidden": (4,), "classes": 3}
        return VAE(**sizes), AmortizedGuide(**sizes), (torch.bernoulli(torch.full((5, 6), 0.5)),)

    return program


def own():
    """A global latent beside local bits, parameters of `pyro.param`, a subsampled plate, a mask and a factor."""

    def model(x):
        w = pyro.sample("w", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        with pyro.plate("d", 50, subsample=torch.arange(5).to(x.device)):
            b = pyro.sample("b", dist.Bernoulli(x.new_tensor(0.3)))
            with pyro.poutine.mask(mask=x[:, 0] > 0):
                pyro.sample("x", dist.Normal(w[..., 0] + b, 1.0), obs=x[:, 1])
        pyro.factor("f", -w.sum(-1))

    def guide(x):
        loc = pyro.param("loc", lambda: x.new_zeros(2))
        scale = pyro.param("scale", lambda: x.new_ones(2), constraint=constraints.positive)
        pyro.sample("w", dist.Normal(loc, scale).to_event(1))
        with pyro.plate("d", 50, subsample=torch.arange(5).to(x.device)):
            pyro.sample("b", dist.Bernoulli(logits=pyro.param("l", lambda: x.new_zeros(())) + x[:, 0]))

    return model, guide, (torch.randn(5, 2),)


@pytest.mark.parametrize("latent", LATENTS)
@pytest.mark.parametrize("elbo", OURS)
def test_every_objective_and_estimator_stays_on_the_programs_device(elbo, latent):
    ran = 0
    for spec in ESTIMATORS if ELBOS[elbo].credit else [None]:
        try:
            gradients = step(vae(latent), elbo, spec, 3)
        except UsageError:
            continue
        ran += 1
        assert gradients and all(g.device.type == "meta" for g in gradients)
    assert ran or elbo == "dreg"


@pytest.mark.parametrize("elbo", ["trace", "tracegraph", "iwae", "vimco", "wake-sleep"])
def test_two_layers_and_a_program_of_ones_own(elbo):
    spec = None if elbo == "wake-sleep" else "auto"
    assert step(vae("bernoulli", (3, 2)), elbo, spec, 3)
    if elbo in ("trace", "tracegraph"):  # the weights of a subsampled plate beside a global latent are refused
        step(own, elbo, "w=pathwise,b=disarm", 3)


def test_an_autoguide():
    def program():
        def model(x):
            w = pyro.sample("w", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            with pyro.plate("d", len(x)):
                pyro.sample("x", dist.Normal((w * x).sum(-1), 1.0), obs=x[:, 0])

        guide = AutoNormal(model)
        with pyro.get_param_store().scope():
            guide(torch.randn(5, 2))
        return model, guide, (torch.randn(5, 2),)

    assert step(program, "trace", "pathwise", 3)


def test_a_tensor_of_the_processors_memory_is_caught(monkeypatch):
    """The planted fault, as it was found on a GPU: `torch.zeros(shape)` without a device in the importance weights."""

    def log_weight(self, terms):
        shape = (self.plan.rows, *[1] * self.plan.max_plate_nesting)
        return sum([t.value for t in terms], torch.zeros(shape)) / self.scale

    monkeypatch.setattr(WeightedTerms, "log_weight", log_weight)
    with pytest.raises(RuntimeError, match=r"not on the expected device|same device"):
        step(vae("normal"), "iwae", "pathwise", 3)

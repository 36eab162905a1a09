"""Small discrete programs of every shape that `pathscore.exact` handles, and a reference that only uses loops.

`CASES` is a list of (name, make), make() -> Case(model, guide, args, params), float64. `assignments(case)` runs both
programs once for every joint value of all latent sites of *all* data points together: no rows, no plate tricks.
"""

import itertools
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.util import site_is_subsample


@dataclass
class Case:
    model: object
    guide: object
    args: tuple
    params: dict


def _leaf(*shape):
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def one_layer():
    """Independent(Bernoulli) with D = 2, one plate."""
    p = {"A": _leaf(3, 2), "W": _leaf(2, 3), "prior": _leaf(2)}

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Bernoulli(logits=p["prior"]).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=z @ p["W"]).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Bernoulli(logits=x @ p["A"]).to_event(1))

    return Case(model, guide, (_bits(2, 3),), p)


def two_layers():
    """b2 given b1 in the guide, b1 given b2 in the model; a subsampled plate and a KL weight on b2."""
    p = {"A": _leaf(3, 1), "V": _leaf(2), "W": _leaf(1, 3), "U": _leaf(2)}

    def model(x):
        with pyro.plate("data", 20, subsample_size=len(x), dim=-1):
            with poutine.scale(scale=0.3):
                b2 = pyro.sample("b2", dist.Bernoulli(torch.tensor(0.3, dtype=x.dtype)))
            b1 = pyro.sample("b1", dist.Bernoulli(logits=(p["U"][0] + p["U"][1] * b2)[..., None]).to_event(1))
            pyro.sample("x", dist.Normal(b1 @ p["W"], 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", 20, subsample_size=len(x), dim=-1):
            b1 = pyro.sample("b1", dist.Bernoulli(logits=x @ p["A"]).to_event(1))
            with poutine.scale(scale=0.3):
                pyro.sample("b2", dist.Bernoulli(logits=p["V"][0] + p["V"][1] * b1[..., 0]))

    return Case(model, guide, (_bits(2, 3),), p)


def categorical():
    """A Categorical beside N = 2 one-hot variables of M = 2 classes."""
    p = {"A": _leaf(3, 3), "W": _leaf(4, 3), "C": _leaf(3, 3)}

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            c = pyro.sample("c", dist.Categorical(torch.ones(3, dtype=x.dtype) / 3))
            o = pyro.sample("o", dist.OneHotCategorical(logits=p["C"][:2, :2]).to_event(1))
            logits = o.flatten(-2) @ p["W"] + p["C"][c]
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            logits = (x @ p["A"])[..., None, :2] * p["C"][:2, :2]
            o = pyro.sample("o", dist.OneHotCategorical(logits=logits).to_event(1))
            pyro.sample("c", dist.Categorical(logits=x @ p["A"] + o[..., 0, :1]))

    return Case(model, guide, (_bits(2, 3),), p)


def global_and_local():
    """A global bit beside local ones, a subsampled plate, a mask and an observed site outside of the plate."""
    p = {"g": _leaf(1), "A": _leaf(3, 2), "W": _leaf(2, 3)}
    mask = torch.tensor([True, False, True])

    def model(x):
        g = pyro.sample("g", dist.Bernoulli(torch.tensor(0.4, dtype=x.dtype)))
        pyro.sample("y", dist.Normal(g, 1.0), obs=torch.tensor(0.7, dtype=x.dtype))
        with pyro.plate("data", 30, subsample_size=len(x), dim=-1), poutine.mask(mask=mask):
            z = pyro.sample("z", dist.Bernoulli(logits=g[..., None] * p["W"][:, 0]).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=z @ p["W"] + g[..., None]).to_event(1), obs=x)

    def guide(x):
        g = pyro.sample("g", dist.Bernoulli(logits=p["g"][0]))
        with pyro.plate("data", 30, subsample_size=len(x), dim=-1), poutine.mask(mask=mask):
            pyro.sample("z", dist.Bernoulli(logits=x @ p["A"] * (1 + g[..., None])).to_event(1))

    return Case(model, guide, (_bits(3, 3),), p)


def nested_plates():
    """w in data × inner given z in data; x in data × inner; events of two dimensions."""
    p = {"a": _leaf(2), "b": _leaf(3)}

    def model(x):
        with pyro.plate("data", x.shape[1], dim=-1):
            z = pyro.sample("z", dist.Bernoulli(logits=p["b"][0]))
            with pyro.plate("inner", x.shape[0], dim=-2):
                w = pyro.sample("w", dist.Bernoulli(logits=p["b"][1] * z))
                loc = (p["b"][2] * w + z)[..., None, None] * torch.ones_like(x[0, 0])
                pyro.sample("x", dist.Normal(loc, 1.0).to_event(2), obs=x)

    def guide(x):
        with pyro.plate("data", x.shape[1], dim=-1):
            z = pyro.sample("z", dist.Bernoulli(logits=p["a"][0] * x.sum((0, 2, 3))))
            with pyro.plate("inner", x.shape[0], dim=-2):
                pyro.sample("w", dist.Bernoulli(logits=p["a"][1] * x[:, :, 0, 0] + z))

    return Case(model, guide, (torch.randn(2, 2, 2, 1, dtype=torch.float64),), p)


def matrix_event_without_plate():
    """Bernoulli of event shape (2, 2) and no plate at all."""
    p = {"m": _leaf(2, 2), "W": _leaf(2, 2)}

    def model(x):
        z = pyro.sample("z", dist.Bernoulli(torch.full((2, 2), 0.3, dtype=x.dtype)).to_event(2))
        pyro.sample("x", dist.Normal(z @ p["W"], 1.0).to_event(2), obs=x)

    def guide(x):
        pyro.sample("z", dist.Bernoulli(logits=p["m"]).to_event(2))

    return Case(model, guide, (torch.randn(2, 2, dtype=torch.float64),), p)


CASES = [one_layer, two_layers, categorical, global_and_local, nested_plates, matrix_event_without_plate]


def _bits(*shape):
    return torch.bernoulli(torch.full(shape, 0.5, dtype=torch.float64))


def _values(site):
    """Every value of the whole tensor of a site, one array at a time."""
    fn = site["fn"]
    base = fn
    while hasattr(base, "base_dist"):
        base = base.base_dist
    states = (
        list(torch.eye(fn.event_shape[-1], dtype=torch.float64))
        if base.event_shape
        else [torch.tensor(float(s), dtype=site["value"].dtype) for s in base.enumerate_support(expand=False).flatten()]
    )
    slots = fn.shape()[: len(fn.shape()) - len(base.event_shape)].numel()
    for choice in itertools.product(states, repeat=slots):
        yield torch.stack(choice).reshape(fn.shape())


def assignments(case):
    """(values, log q, log p, cost) of every joint assignment: bare log-probabilities; Pyro's scaled and masked cost."""
    trace = poutine.trace(case.guide).get_trace(*case.args)
    names = [name for name in trace.stochastic_nodes if not site_is_subsample(trace.nodes[name])]
    for values in itertools.product(*(_values(trace.nodes[name]) for name in names)):
        values = dict(zip(names, values, strict=True))
        q = poutine.trace(poutine.condition(case.guide, data=values)).get_trace(*case.args)
        p = poutine.trace(poutine.condition(case.model, data=values)).get_trace(*case.args)
        yield values, _bare(q), _bare(p), p.log_prob_sum() - q.log_prob_sum()


def _bare(trace):
    sites = [site for site in trace.nodes.values() if site["type"] == "sample" and not site_is_subsample(site)]
    return sum(site["fn"].log_prob(site["value"]).sum() for site in sites)

"""Pairs with a known posterior for the diagnostics tests, and guides that are wrong in a known way.

`linear_gaussian(seed, shift, scale)`: z ~ N(0, I₃), x | z ~ N(W z + b, ½² I₅), W and b drawn from the seed, with the
exact posterior as guide, its mean moved by `shift` posterior standard deviations and its scale multiplied by `scale`.
`belief_net(seed)`: ten Bernoulli latents, twelve pixels, a guide that is near but not exact. Both return (model, guide,
x); x is drawn from the model.
"""

import math

import pyro
import pyro.distributions as dist
import torch

NOISE = 0.5
FAULTS = {"shifted by ½ sd": {"shift": 0.5}, "narrow, × ½": {"scale": 0.5}, "wide, × 2": {"scale": 2.0}}


def linear_gaussian(seed=0, shift=0.0, scale=1.0, rows=200, latents=3, width=5):
    g = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(width, latents, generator=g), torch.randn(width, generator=g)
    covariance = torch.linalg.inv(torch.eye(latents) + weight.T @ weight / NOISE**2)
    tril = torch.linalg.cholesky(covariance)

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(latents), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.T + bias, NOISE).to_event(1), obs=x)

    def guide(x):
        mean = (x - bias) @ weight @ covariance / NOISE**2 + shift * covariance.diagonal().sqrt()
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.MultivariateNormal(mean, scale_tril=scale * tril))

    z = torch.randn(rows, latents, generator=g)
    return model, guide, z @ weight.T + bias + NOISE * torch.randn(rows, width, generator=g)


def log_evidence(seed, x, latents=3, width=5):
    """log N(x; b, W Wᵀ + ½² I) in closed form, (N,)."""
    g = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(width, latents, generator=g), torch.randn(width, generator=g)
    return torch.distributions.MultivariateNormal(bias, weight @ weight.T + NOISE**2 * torch.eye(width)).log_prob(x)


def belief_net(seed=0, rows=40, latents=10, width=12):
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(latents, width, generator=g)
    weight, bias = weight * 2 / math.sqrt(latents), torch.randn(width, generator=g) / 2
    back = weight.T * 0.5

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Bernoulli(logits=torch.zeros(latents)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=(2 * z - 1) @ weight + bias).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Bernoulli(logits=(2 * x - 1) @ back).to_event(1))

    z = torch.bernoulli(torch.full((rows, latents), 0.5), generator=g)
    return model, guide, torch.bernoulli(torch.sigmoid((2 * z - 1) @ weight + bias), generator=g)

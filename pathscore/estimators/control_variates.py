"""Score function with a differentiable control variate: REBAR, RELAX, MuProp.

The control variate is a function of the value whose expectation can be differentiated along a path; what it explains
is taken off the score's signal and given back as a path gradient, so the mean stays exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pathscore.estimators.base import Estimator, Site
from pathscore.estimators.baselines import small_net
from pathscore.estimators.families import linear_log_prob, unwrap
from pathscore.estimators.relaxation import relaxation_of, uniform


class REBAR(Estimator):
    """[f(b) − η f(σ(z̃/τ))] ∇log q(b) + η ∇f(σ(z/τ)) − η ∇f(σ(z̃/τ)),  b = H(z), z̃ ~ z | b.

    η and τ are trained on the variance of the estimate at the site's logits (the slopes of f are held fixed in that
    loss, which spares second derivatives of the model).

    References:
        REBAR: Low-Variance, Unbiased Gradient Estimates for Discrete Latent Variable Models.
        Tucker, Mnih, Maddison, Lawson, Sohl-Dickstein, 2017.
    """

    name = "rebar"
    formula = "[f(b) − η f(σ(z̃))] ∇log q(b) + η ∇f(σ(z)) − η ∇f(σ(z̃))"
    reference = "Tucker, Mnih, Maddison, Lawson & Sohl-Dickstein 2017"
    families = ("bernoulli", "onehot")
    differentiable_cost = True
    relaxed = True
    needs_slope = True

    def __init__(self, temperature: float = 0.5, eta: float = 1.0) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log())
        self.eta = nn.Parameter(torch.tensor(eta))

    def rows(self, fn: Any) -> int:
        return 2

    def sample(self, fn: Any) -> tuple[Tensor, Any]:
        relax, logits = relaxation_of(fn), unwrap(fn).logits.detach()
        noise = relax.noise(logits)
        return relax.harden(logits + noise), (noise, uniform(logits))

    def pair(self, fn: Any, value: Tensor, noise: Any) -> tuple[Tensor, Tensor]:
        """z and z̃, both with their dependence on the logits."""
        logits = unwrap(fn).logits
        return logits + noise[0], relaxation_of(fn).conditional(logits, value, noise[1])

    def branch(self, fn: Any, value: Tensor, noise: Any) -> Tensor:
        soften, temperature = relaxation_of(fn).soften, self.log_temperature.exp()
        return torch.stack([soften(z, temperature) for z in self.pair(fn, value, noise)])

    def surrogate(self, site: Site) -> Tensor:
        return self._estimate(site, {name: p.detach() for name, p in self.named_parameters()})

    def _estimate(self, site: Site, parameters: Mapping[str, Tensor]) -> Tensor:
        """The surrogate, given this estimator's own parameters: detached for the gradient, live to train them."""
        assert site.slope is not None
        soften, temperature = relaxation_of(site.fn).soften, parameters["log_temperature"].exp()
        z, z_tilde = self.pair(site.fn, site.value, site.noise)
        frozen = soften(z_tilde.detach(), temperature)
        # f at the frozen z̃, first order in the temperature; its value is the cost of the second row.
        f_tilde = site.cost[2] + site.over_event(site.slope[1] * (frozen - frozen.detach()))
        signal = site.cost[0] - parameters["eta"] * f_tilde - self.residual(site, z_tilde.detach(), parameters)
        soft, soft_tilde = soften(z, temperature), soften(z_tilde, temperature)
        path = site.over_event(site.slope[0] * soft - site.slope[1] * soft_tilde)
        path = parameters["eta"] * path + self.residual(site, z, parameters) - self.residual(site, z_tilde, parameters)
        return signal * linear_log_prob(site.fn, site.value) + path

    def residual(self, site: Site, z: Tensor, parameters: Mapping[str, Tensor]) -> Tensor | float:
        """The learned part of the control variate, (K, *plates): none in REBAR."""
        return 0.0

    def aux_loss(self, site: Site) -> Tensor | None:
        """E‖g‖² at the site's logits, its gradient taken for this estimator's parameters only."""
        own = dict(self.named_parameters())
        logits = unwrap(site.fn).logits
        if not logits.requires_grad:
            return None
        (g,) = torch.autograd.grad(self._estimate(site, own).sum(), logits, create_graph=True)
        second_moment = g.square().sum() / site.cost[0].numel()
        gradients = torch.autograd.grad(second_moment, list(own.values()), retain_graph=True)
        return torch.stack([(p * d.detach()).sum() for p, d in zip(own.values(), gradients, strict=True)]).sum()


class RELAX(REBAR):
    """REBAR plus a free control network: c(z) = η f(σ(z/τ)) + r_ψ(z, context).

    References:
        Backpropagation through the Void: Optimizing Control Variates for Black-Box Gradient Estimation.
        Grathwohl, Choi, Wu, Roeder, Duvenaud, 2018.
    """

    name = "relax"
    formula = "[f(b) − c(z̃)] ∇log q(b) + ∇c(z) − ∇c(z̃), c = η f(σ(·)) + r_ψ"
    reference = "Grathwohl, Choi, Wu, Roeder & Duvenaud 2018"

    def __init__(self, temperature: float = 0.5, eta: float = 1.0, hidden: int = 50) -> None:
        super().__init__(temperature, eta)
        self.hidden = hidden
        self.net: nn.Module = nn.Identity()

    def setup(self, fn: Any, context: Tensor) -> None:
        if isinstance(self.net, nn.Identity):
            self.net = small_net(fn.event_shape.numel() + context.shape[-1], self.hidden, context)  # starts as REBAR

    def residual(self, site: Site, z: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        own = {name.removeprefix("net."): p for name, p in parameters.items() if name.startswith("net.")}
        flat = z.reshape(*z.shape[: z.ndim - len(site.fn.event_shape)], -1)
        inputs = torch.cat([flat, site.context.to(flat.dtype)], -1)
        return functional_call(self.net, own, (inputs,)).squeeze(-1)


class MuProp(Estimator):
    """[f(b) − f(μ) − f′(μ)(b − μ)] ∇log q(b) + f′(μ) ∇μ, with μ = E[b].

    References:
        MuProp: Unbiased Backpropagation for Stochastic Neural Networks. Gu, Levine, Sutskever, Mnih, 2016.
    """

    name = "muprop"
    formula = "[f(b) − f(μ) − f′(μ)(b − μ)] ∇log q(b) + f′(μ) ∇μ"
    reference = "Gu, Levine, Sutskever & Mnih 2016"
    families = ("bernoulli", "onehot")
    differentiable_cost = True
    relaxed = True
    needs_slope = True

    def rows(self, fn: Any) -> int:
        return 1

    def branch(self, fn: Any, value: Tensor, noise: Any) -> Tensor:
        return relaxation_of(fn).mean(unwrap(fn).logits)[None]

    def surrogate(self, site: Site) -> Tensor:
        assert site.slope is not None and site.branch is not None
        mean = site.branch[0]
        linear = site.over_event(site.slope[0] * (site.value - mean.detach()))
        signal = site.cost[0] - site.cost[1] - linear
        return signal * site.log_q + site.over_event(site.slope[0] * mean)

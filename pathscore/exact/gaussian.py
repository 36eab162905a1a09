"""Closed forms for linear-Gaussian programs: ELBO, log p(x) and posterior for any number of layers.

`elbo`, `log_evidence` and `posterior` take (model, guide, *args). The latent sites must share one plate, and the
log-densities must be quadratic in them: z ~ N(0, I), x | z ~ N(W z + b, s² I), q(z | x) = N(A x + c, Σ), and chains of
such sites. The programs are not changed. The values at the origin, at ±e_i and at e_i + e_j determine a quadratic in D
latents. All of them are rows of one pass, so the coefficients are differentiable in the parameters. Two more rows check
that the function is quadratic. B data points, D latent variables of one data point.
"""

import math
from typing import NamedTuple

import torch

from pathscore.errors import UsageError
from pathscore.exact.enumeration import STATE_LIMIT
from pathscore.exact.rows import GiveValues, plates, run_rows, site_terms, trial

LOG_2PI = math.log(2 * math.pi)


class Quadratic(NamedTuple):
    """c + gᵀz + ½ zᵀH z per data point: constant (B,), slope (B, D), curvature (B, D, D)."""

    constant: torch.Tensor
    slope: torch.Tensor
    curvature: torch.Tensor

    def integral(self) -> torch.Tensor:
        """log ∫ exp(·) dz = c + ½ gᵀ(−H)⁻¹g + ½ D log 2π − ½ log det(−H), (B,)."""
        gaussian = self.gaussian()
        quadratic = 0.5 * (self.slope * gaussian.loc).sum(-1)
        log_det = 2 * gaussian.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return self.constant + quadratic + 0.5 * (self.slope.shape[-1] * LOG_2PI + log_det)

    def gaussian(self) -> torch.distributions.MultivariateNormal:
        """The Gaussian whose log-density differs from this quadratic by a constant."""
        precision = torch.linalg.cholesky(-self.curvature)
        mean = torch.cholesky_solve(self.slope[..., None], precision)[..., 0]
        return torch.distributions.MultivariateNormal(mean, covariance_matrix=torch.cholesky_inverse(precision))

    def expected(self, law: torch.distributions.MultivariateNormal) -> torch.Tensor:
        """The expectation of the quadratic, (B,): its value at the mean plus ½ tr(H Σ)."""
        mean, spread = law.mean, (self.curvature * law.covariance_matrix).sum((-2, -1))
        curved = (self.curvature @ mean[..., None])[..., 0]
        return self.constant + (mean * (self.slope + 0.5 * curved)).sum(-1) + 0.5 * spread


class Pair(NamedTuple):
    """Three quadratics of one program pair: log p and log q without scales and masks, and the cost with them."""

    log_p: Quadratic
    log_q: Quadratic
    cost: Quadratic


def _at_points(sites, points: torch.Tensor, depth: int) -> GiveValues:
    """A handler that sets the guide's latent sites to the coordinates of one point per row, points (R, D)."""
    pieces = points.split([site["fn"].event_shape.numel() for _, site in sites], dim=1)
    return GiveValues(
        {
            name: piece.reshape(-1, *(1,) * depth, *site["fn"].event_shape)
            for (name, site), piece in zip(sites, pieces, strict=True)
        }
    )


def _points(dims: int, like: torch.Tensor) -> torch.Tensor:
    """The origin, e_i, −e_i, e_i + e_j for i < j, and two points for checking: (1 + 2D + D(D−1)/2 + 2, D)."""
    eye = torch.eye(dims, dtype=like.dtype, device=like.device)
    i, j = torch.triu_indices(dims, dims, 1)
    check = torch.linspace(-1.5, 1.9, 2 * dims).reshape(2, dims).to(eye)
    return torch.cat([torch.zeros_like(eye[:1]), eye, -eye, eye[i] + eye[j], check])


def _quadratic(values: torch.Tensor, points: torch.Tensor, what: str) -> Quadratic:
    """The quadratic through the values (R, B) at the points. The last two points check it."""
    points, dims = points.to(values), points.shape[1]
    count = values.shape[0] - 2
    origin, plus, minus, pairs, check = values.split([1, dims, dims, count - 1 - 2 * dims, 2])
    slope, diagonal = (plus - minus) / 2, plus + minus - 2 * origin
    i, j = torch.triu_indices(dims, dims, 1)
    upper = values.new_zeros(dims, dims, values.shape[1]).index_put((i, j), pairs - plus[i] - plus[j] + origin)
    curvature = (upper + upper.transpose(0, 1) + torch.diag_embed(diagonal.T).permute(1, 2, 0)).permute(2, 0, 1)
    found = Quadratic(origin[0], slope.T, curvature)
    z = points[-2:]
    guess = found.constant + z @ slope + 0.5 * torch.einsum("rd,bde,re->rb", z, curvature, z)
    tolerance = 1e-8 if values.dtype == torch.float64 else 1e-3
    if not torch.allclose(guess, check, rtol=tolerance, atol=tolerance):
        raise UsageError(
            f"{what} is not quadratic in its latent variables: the closed form is for linear-Gaussian "
            "programs; use enumeration or quadrature (exact.elbo) or sampling"
        )
    return found


def extract(model, guide, *args, **kwargs) -> Pair:
    """The log-densities of a linear-Gaussian pair as quadratics of each data point's latents.

    Raises UsageError when latent sites do not share their plates, when a density is not quadratic in the
    latents, and for more than about 180 latent variables per data point (2^14 rows).
    """
    sites, depth = trial(model, guide, args, kwargs)
    frames = {plates(site) for _, site in sites}
    if len(frames) != 1:
        raise UsageError("the linear-Gaussian closed form needs latent sites that all lie in the same plates")
    dims = sum(site["fn"].event_shape.numel() for _, site in sites)
    points = _points(dims, sites[0][1]["value"])
    if len(points) > STATE_LIMIT:
        raise UsageError(f"{dims} latent variables per data point need {len(points)} rows: the limit is {STATE_LIMIT}")
    placed = _at_points(sites, points, depth)
    guide_trace, model_trace = run_rows(model, guide, args, kwargs, placed, len(points), depth)
    keep, latent = frames.pop(), {name for name, _ in sites}
    q, p = (site_terms(trace, (len(points),)) for trace in (guide_trace, model_trace))
    log_q = _summed(((t.frames, t.bare) for t in q), keep)
    # A latent's own prior unmasked: masked data then have log p(x) = log ∫ p(z) dz = 0.
    log_p = _summed(((t.frames, t.bare if t.name in latent else t.masked) for t in p), keep)
    cost = _summed(((t.frames, t.scaled) for t in p), keep) - _summed(((t.frames, t.scaled) for t in q), keep)
    return Pair(
        _quadratic(log_p, points, "log p(x, z)"),
        _quadratic(log_q, points, "log q(z | x)"),
        _quadratic(cost, points, "the cost log p − log q"),
    )


def _summed(terms, keep: frozenset) -> torch.Tensor:
    """The sum of (frames, log-density) pairs over all plates but those in `keep`, (R, B)."""
    total = torch.zeros(())
    for frames, value in terms:
        deeper = [f.dim for f in frames - keep]
        total = total + (value.sum(deeper, keepdim=True) if deeper else value)
    return total.reshape(total.shape[0], -1)


def elbo(model, guide, *args, **kwargs) -> torch.Tensor:
    """E_q[log p(x, z) − log q(z | x)] with scales and masks: a differentiable scalar."""
    pair = extract(model, guide, *args, **kwargs)
    return pair.cost.expected(pair.log_q.gaussian()).sum()


def log_evidence(model, guide, *args, **kwargs) -> torch.Tensor:
    """log p(x) = log N(x; b, W Wᵀ + s² I) per data point, (B,), differentiable. The guide only names the latents."""
    return extract(model, guide, *args, **kwargs).log_p.integral()


def posterior(model, guide, *args, **kwargs) -> torch.distributions.MultivariateNormal:
    """p(z | x), batch (B,), event (D,): the latent sites' event elements in the guide's order, flattened."""
    return extract(model, guide, *args, **kwargs).log_p.gaussian()

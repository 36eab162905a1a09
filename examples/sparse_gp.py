"""A sparse variational Gaussian process: a smooth curve by four inducing points.

After Pyro's tutorial "Gaussian Processes". `build(seed) -> (model, guide, args)`; the module brings its own guide.
"""

import pyro.contrib.gp as gp
import torch

from pathscore import SVI, make_elbo


def build(seed: int = 0):
    """Model, guide and arguments (): the data are part of the module."""
    torch.manual_seed(seed)
    x = torch.linspace(0, 4, 20)
    y = x.sin() + 0.1 * torch.randn(20)
    kernel = gp.kernels.RBF(1, lengthscale=torch.tensor(1.0))
    process = gp.models.VariationalSparseGP(x, y, kernel, x[2::5].clone(), gp.likelihoods.Gaussian(torch.tensor(0.1)))
    return process.model, process.guide, ()


if __name__ == "__main__":
    model, guide, args = build()
    svi = SVI(model, guide, "adam(lr=0.02)", make_elbo("trace", "auto", max_plate_nesting=2))
    losses = [svi.step(*args) for _ in range(500)]
    print(f"loss {losses[0]:.1f} at first, {losses[-1]:.1f} after {len(losses)} steps")

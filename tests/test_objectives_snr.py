"""How fast the guide's gradient drowns: signal-to-noise over K, and what control variates take off the noise."""

from itertools import pairwise

import pytest
import torch
from objective_cases import Layers
from objective_normals import Chain, Line
from objective_reference import sampled_gradients

from pathscore.elbos import make_elbo

GUIDE = {Line: ("m", "s"), Chain: ("m1", "s1", "m2", "h", "s2")}
WIDE = {Chain: Chain.values | {"s1": 0.2, "s2": 0.2}}  # wider than the posterior: weights with a variance


def draws(case, name, K, **options):
    torch.manual_seed(K)
    program = case(2000 if K < 100 else 500, WIDE.get(case))
    return sampled_gradients(program, make_elbo(name, num_particles=K, **options))[0]


def signal_to_noise(case, K):
    """Mean over the guide's parameters of |mean| / standard deviation, for iwae and dreg.

    Both have the same mean, so the quieter one's is used for both. From 500 draws a ratio is known to about 10 %.
    """
    columns = [i for i, name in enumerate(case.values) if name in GUIDE[case]]
    found = {name: draws(case, name, K)[:, columns] for name in ("iwae", "dreg")}
    mean = found["dreg"].mean(0).abs()
    return [(mean / gradients.std(0)).mean().item() for gradients in found.values()]


def test_linear_gaussian_up_to_1024_particles():
    """IWAE falls as K^−½ (0.39 to 0.008), DReG rises as K^½ (1.2 to 22)."""
    iwae, dreg = zip(*(signal_to_noise(Line, K) for K in (1, 4, 16, 64, 256, 1024)), strict=True)
    assert all(b < 0.7 * a for a, b in pairwise(iwae)), iwae
    assert all(b > 0.9 * a for a, b in pairwise(dreg)) and dreg[-1] > 10 * dreg[0], dreg


def test_two_layers_up_to_1024_particles():
    """IWAE falls (0.18 to 0.014), DReG stays (0.5 to 0.9)."""
    iwae, dreg = zip(*(signal_to_noise(Chain, K) for K in (1, 16, 256, 1024)), strict=True)
    assert all(b < 0.7 * a for a, b in pairwise(iwae)), iwae
    assert min(dreg) > 0.6 * dreg[0], dreg


@pytest.mark.parametrize("K", [5, 50])
def test_the_leave_one_out_signal_is_worth_ten_fold(K):
    """Variance of the guide's gradient at score-function sites: L_K alone against VIMCO's fill-ins."""
    variance = {"score": draws(Layers, "iwae", K)[:, :5].var(0).sum()}
    for fill in ("geometric", "arithmetic", "none"):
        variance[fill] = draws(Layers, "vimco", K, fill=fill)[:, :5].var(0).sum()
    assert all(variance["score"] > 10 * v for fill, v in variance.items() if fill != "score"), variance

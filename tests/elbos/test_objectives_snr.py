"""How fast the guide's gradient drowns: signal-to-noise over K, and what control variates take off the noise.

`pytest tests/elbos/test_objectives_snr.py -s` prints the tables of docs/objectives.md.
"""

from itertools import pairwise

import pytest
import torch
from objective_cases import Layers
from objective_normals import Chain, Line
from objective_reference import sampled_gradients

from pathscore.elbos import make_elbo
from pathscore.elbos.weights import WeightedTerms

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


@pytest.mark.parametrize("case", GUIDE)
def test_signal_to_noise_up_to_1024_particles(case):
    """IWAE falls as K^−½, DReG rises as K^½; both from one layer and from two."""
    ratios = {K: signal_to_noise(case, K) for K in (1, 4, 16, 64, 256, 1024)}
    print(f"\n{case.__name__}: K, signal-to-noise of iwae, of dreg")
    print("\n".join(f"{K:5d} {iwae:7.3f} {dreg:7.3f}" for K, (iwae, dreg) in ratios.items()))
    iwae, dreg = zip(*ratios.values(), strict=True)
    assert all(b < 0.7 * a for a, b in pairwise(iwae)), iwae
    assert all(b > 0.8 * a for a, b in pairwise(dreg)) and dreg[-1] > 10 * dreg[0], dreg


CHOICES = {
    "score, L alone": ("iwae", {}),
    "vimco, geometric": ("vimco", {}),
    "vimco, arithmetic": ("vimco", {"fill": "arithmetic"}),
    "ovis": ("ovis", {}),
    **{e: ("vimco", {"estimators": e}) for e in ("disarm", "local", "rebar", "muprop", "enum")},
}


@pytest.mark.parametrize("K", [2, 5, 50])
def test_variance_of_the_guides_gradient_at_discrete_sites(K):
    """Total over the guide's five parameters of `Layers`: what comparing and differencing take off L_K's noise."""
    variance = {label: draws(Layers, name, K, **o)[:, :5].var(0).sum().item() for label, (name, o) in CHOICES.items()}
    print(f"\nK = {K}: " + ", ".join(f"{label} {value:.2g}" for label, value in variance.items()))
    worst = variance.pop("score, L alone")
    assert all(worst > 10 * value for value in variance.values()), variance
    assert variance["disarm"] < variance["vimco, geometric"], variance
    if K == 50:
        assert variance["ovis"] < 0.01 * variance["vimco, geometric"], variance


@pytest.mark.parametrize("K", [2, 5, 50])
def test_the_share_left_in_the_path_is_noise_to_disarm(K, monkeypatch):
    """−v_k, a part of the cost, left to the differentiation of the weights: at least five times as noisy."""
    right = draws(Layers, "vimco", K, estimators="disarm")[:, :5].var(0).sum().item()
    monkeypatch.setattr(WeightedTerms, "folded", property(lambda terms: {}))
    left = draws(Layers, "vimco", K, estimators="disarm")[:, :5].var(0).sum().item()
    print(f"\nK = {K}: disarm {right:.2g}, with the share left in the path {left:.2g}")
    assert left > 5 * right

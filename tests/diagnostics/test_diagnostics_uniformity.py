"""The exact test of uniformity, against simulation and against sets of numbers that are not uniform.

Simulation: 2 000 sets of N values; the rate of p ≤ α is Binomial, so |rate − α| ≤ 5 √(α/2000) has a false-alarm rate
below 1e-6 a line and finds a level that is off by 1.1 % at α = 1 %. The p-value is conservative by the discreteness of
counts, at most by the probability of one count.
"""

import numpy as np
import pytest

from pathscore.diagnostics import uniformity


@pytest.mark.parametrize("n", [20, 100])
def test_the_p_value_has_its_level(n):
    rng = np.random.default_rng(1)
    p = np.array([uniformity.p_value(rng.uniform(size=n)) for _ in range(2000)])
    for alpha in (0.01, 0.1):
        rate = (p <= alpha).mean()
        assert rate <= alpha + 5 * np.sqrt(alpha / 2000)
        assert rate >= 0.5 * alpha  # not uselessly conservative


def test_the_p_value_agrees_with_counting_all_outcomes():
    # N = 3, grid 1/3, 2/3: counts (c1, c2) have a multinomial law that can be written down.
    from itertools import product
    from math import comb, factorial

    def probability(a, b, c):
        return factorial(3) / (factorial(a) * factorial(b) * factorial(c)) / 27

    def tail(count, t):
        pmf = [comb(3, k) * t**k * (1 - t) ** (3 - k) for k in range(4)]
        return 2 * min(sum(pmf[: count + 1]), sum(pmf[count:]))

    law = [
        (probability(a, b, 3 - a - b), min(tail(a, 1 / 3), tail(a + b, 2 / 3)))
        for a, b in product(range(4), repeat=2)
        if a + b <= 3
    ]
    for values, counts in (([0.1, 0.2, 0.3], (3, 3)), ([0.1, 0.5, 0.9], (1, 2)), ([0.7, 0.8, 0.9], (0, 0))):
        gamma = min(tail(counts[0], 1 / 3), tail(counts[1], 2 / 3))
        expected = sum(p for p, g in law if g <= gamma + 1e-12)
        assert uniformity.p_value(np.array(values)) == pytest.approx(expected, abs=1e-12)


def test_the_band_holds_its_share_of_uniform_samples():
    rng = np.random.default_rng(2)
    band = uniformity.band(200, 0.95)
    ecdf = np.searchsorted(np.sort(rng.uniform(size=200)), band.grid, side="right") / 200
    assert band.lower.shape == band.upper.shape == ecdf.shape
    leaves = 0
    for _ in range(4000):
        ecdf = np.searchsorted(np.sort(rng.uniform(size=200)), band.grid, side="right") / 200
        leaves += bool(((ecdf < band.lower - 1e-9) | (ecdf > band.upper + 1e-9)).any())
    assert 0.03 <= leaves / 4000 <= 0.05 + 5 * np.sqrt(0.05 / 4000)


@pytest.mark.parametrize(
    "fault", [lambda u: u**1.3, lambda u: 0.5 + (u - 0.5) * 0.8, lambda u: np.where(u < 0.05, 0.5, u)]
)
def test_departures_are_found(fault):
    rng = np.random.default_rng(3)
    assert all(uniformity.p_value(fault(rng.uniform(size=1000))) < 1e-3 for _ in range(20))


def test_the_family_is_corrected_for_its_size():
    rng = np.random.default_rng(4)
    values = rng.uniform(size=(300, 40))
    values[:, 7] **= 1.6
    p, worst = uniformity.family_p_value(values)
    assert worst == 7
    assert p == pytest.approx(min(1.0, 40 * uniformity.p_value(values[:, 7])))


@pytest.mark.parametrize("columns", [1, 20])
def test_a_line_leaves_the_drawn_band_exactly_where_the_verdict_is_significant(columns):
    """500 data sets of N = 60 whose p-values lie on both sides of 0.1 %; planted fault: the band of 99 %."""
    from pathscore.diagnostics.calibration import ALPHA
    from pathscore.diagnostics.palette import LIGHT
    from pathscore.diagnostics.plots import ecdf_plot

    rng, agree, disagree_at_99 = np.random.default_rng(0), [], 0
    ax = ecdf_plot(LIGHT, rng.uniform(size=(60, columns)), 0, "z")
    assert "99.9 %" in ax.get_legend().get_texts()[0].get_text()
    bands = [uniformity.band(60, 1 - (1 - level) / columns) for level in (1 - ALPHA, 0.99)]
    for power in rng.uniform(1.0, 2.2, 500):
        pit = rng.uniform(size=60) ** power
        p = min(1.0, uniformity.p_value(pit) * columns)
        curve = np.searchsorted(np.sort(pit), bands[0].grid, side="right") / 60
        outside = [bool(((curve < b.lower - 1e-9) | (curve > b.upper + 1e-9)).any()) for b in bands]
        agree.append(outside[0] == (p <= ALPHA))
        disagree_at_99 += outside[1] != (p <= ALPHA)
    assert all(agree) and disagree_at_99 > 20

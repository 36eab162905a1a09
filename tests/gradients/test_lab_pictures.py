"""Pictures of a comparison: names that never lie on each other, draws that are never outside the panel."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from pathscore.diagnostics.palette import DARK, LIGHT
from pathscore.gradients.pictures import intervals, spread_out, ticks, trade_off


def table(variances, spreads):
    rows = [
        {"name": f"estimator-{i}", "unbiased": i % 3 > 0, "total_variance": v, "variance_se": v / 20, "mean": 1.0}
        | {"milliseconds": 0.01 * (1 + i % 5), "quantiles": [1 - 3 * s, 1 - s, 1 + s, 1 + 3 * s]}
        for i, (v, s) in enumerate(zip(variances, spreads, strict=True))
    ]
    return {"estimators": rows, "largest": 1.0}


CASES = {
    "alike": table([2.0] * 19, [0.1] * 19),
    "far apart": table([1e-6, 3.0, 1e9], [1e-4, 1.0, 1e4]),
    "one": table([2.0], [1.0]),
    "none varies": table([0.0, 0.0], [0.0, 0.0]),
}


def boxes(texts):
    figure = texts[0].get_figure(root=True)
    FigureCanvasAgg(figure).draw()
    return [Text.get_window_extent(text) for text in texts]  # without the line to its point


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_names_do_not_lie_on_each_other(case, palette):
    names = trade_off(palette, CASES[case]).texts
    assert len(names) == sum(row["total_variance"] > 0 for row in CASES[case]["estimators"])
    ax = intervals(palette, CASES[case])
    for texts in (names, ax.get_yticklabels(), ax.get_xticklabels()):
        for a, b in itertools.combinations(boxes(texts) if texts else [], 2):
            assert not a.shrunk(0.8, 0.8).overlaps(b.shrunk(0.8, 0.8))


def test_the_check_finds_names_at_their_points():
    ax = trade_off(LIGHT, CASES["alike"])
    for text in ax.texts:  # the planted fault: each name beside its point
        text.set_position((1.03, 0.5))
    pairs = itertools.combinations(boxes(ax.texts), 2)
    assert any(a.overlaps(b) for a, b in pairs)


@pytest.mark.parametrize("case", CASES)
def test_every_draw_is_in_the_panel(case):
    ax = intervals(LIGHT, CASES[case])
    low, high = ax.get_xlim()
    drawn = [line.get_xdata() for line in ax.lines]
    assert low < min(map(min, drawn)) and max(map(max, drawn)) < high
    assert len(ax.get_yticks()) == len(CASES[case]["estimators"])


def test_places_keep_their_order_and_their_distance():
    wanted = np.sort(np.random.default_rng(0).uniform(size=19))
    found = np.array(spread_out(list(wanted), 0.08))
    assert (np.diff(found) >= 0.08 - 1e-12).all()
    assert found.mean() == pytest.approx(wanted.mean())
    assert spread_out([0.1, 0.9], 0.2) == pytest.approx([0.1, 0.9])


@pytest.mark.parametrize("low", [0.1, 0.13, 0.19, 0.45, 0.9])
@pytest.mark.parametrize("span", [2.56, 4.0, 9.0, 40.0, 5000.0])
def test_a_logarithmic_axis_has_some_round_numbers_and_not_too_many(low, span):
    found = ticks(low, low * span)
    assert 2 <= len(found) <= 6 and all(low <= tick <= low * span for tick in found)

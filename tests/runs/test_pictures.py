"""The pictures of a run: what is in them, on any shape of data, and that they are written whole."""

import json

import matplotlib.image
import numpy as np
import pytest
import torch

from guides import AmortizedGuide
from models import VAE
from pathscore.config import Config
from pathscore.errors import RunDirError
from pathscore.runs import pictures as report
from pathscore.runs.assembly import assemble

LINES = [
    {"step": 50, "seconds": 1.0, "rows": 50, "train_elbo": -30.0},
    {"step": 60, "seconds": 1.2, "rows": 60, "train_elbo": -29.0, "valid_elbo": -29.0, "valid_elbo_se": 0.5}
    | {"epoch_end": True},
    {"step": 120, "seconds": 2.4, "rows": 60, "train_elbo": -26.0, "valid_elbo": -27.0, "valid_elbo_se": None},
]


def test_training_curve_shows_both_bounds_against_steps_and_seconds_with_the_band_of_the_error():
    figure = report.training_curve(LINES)
    for ax, x in zip(figure.axes, ([50, 60, 120], [1.0, 1.2, 2.4]), strict=True):
        train, valid = ax.lines
        assert list(train.get_xdata()) == x and list(train.get_ydata()) == [-30, -24, -26]
        assert list(valid.get_xdata()) == x[1:] and list(valid.get_ydata()) == [-29, -27]
        band = ax.collections[0].get_paths()[0].vertices[:, 1]
        assert band.min() == -30.0 and band.max() == -27.0
    assert [ax.get_xlabel() for ax in figure.axes] == ["step", "seconds"]


def test_a_run_without_metrics_has_an_empty_curve():
    assert len(report.training_curve([]).axes[0].lines[0].get_xdata()) == 0


def _mosaic(figure):
    return np.asarray(figure.axes[0].images[0].get_array())


@pytest.mark.parametrize("channels", [1, 3])
def test_reconstructions_stand_under_their_originals(channels):
    x = torch.rand(15, channels * 4)
    figure = report.reconstructions(x, 1 - x, (channels, 2, 2))
    mosaic = _mosaic(figure)
    assert mosaic.shape[:2] == (4 * 3, 12 * 3)  # two pairs of rows of 12 tiles, one line between tiles
    original, rebuilt = (mosaic[r : r + 2, 3:5].reshape(4, -1) for r in (0, 3))
    assert np.allclose(original, x[1].reshape(channels, 4).T, atol=1e-6)
    assert np.allclose(original + rebuilt, 1, atol=1e-6)
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["original", "reconstruction"] * 2


def test_values_beyond_the_unit_interval_are_mapped_onto_it():
    mosaic = _mosaic(report.prior_samples(torch.tensor([[-3.0, 5.0, 1.0, 1.0]]), (1, 2, 2)))
    assert np.nanmin(mosaic) == 0 and np.nanmax(mosaic) == 1
    assert mosaic[1, 0] == pytest.approx(0.5)


def test_data_that_are_no_images_are_drawn_as_curves_in_their_own_units():
    x = torch.randn(4, 7) * 10
    figure = report.reconstructions(x, x + 1, (7,))
    assert np.allclose(figure.axes[1].lines[0].get_ydata(), x[1])
    assert np.allclose(figure.axes[1].lines[1].get_ydata(), x[1] + 1)
    assert len(report.prior_samples(x, (7,)).axes[0].lines) == 1


@pytest.mark.parametrize(("likelihood", "shape"), [("bernoulli", (1, 3, 3)), ("normal", (9,))])
def test_pictures_of_a_run_are_written_and_the_random_stream_is_left_alone(tmp_path, likelihood, shape):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    x = torch.bernoulli(torch.full((5, 9), 0.5))
    np.savez(tmp_path / "own.npz", x=x.reshape(5, *shape))
    job = assemble(Config(data=str(tmp_path / "own.npz"), likelihood=likelihood))
    (tmp_path / "own.npz").unlink()
    before = torch.get_rng_state()
    paths = report.save_pictures(tmp_path, job, job.held_out)
    assert torch.equal(before, torch.get_rng_state())
    assert [path.name for path in paths] == ["training.png", "reconstructions.png", "samples.png"]
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl", *(path.name for path in paths)}
    for path in paths:
        picture = matplotlib.image.imread(path)
        assert min(picture.shape[:2]) > 60 and picture[..., :3].std() > 0.01
        assert (picture[0, 0, :3] == 1).all()  # white ground


def test_rebuilt_and_drawn_are_means_of_the_observed_site():
    model, guide = VAE(9), AmortizedGuide(9)
    x = torch.bernoulli(torch.full((6, 9), 0.5))
    for mean in (report.rebuilt(model, guide, x), report.drawn(model, x)):
        assert mean.shape == x.shape and mean.min() > 0 and mean.max() < 1
    assert not torch.equal(report.rebuilt(model, guide, x), report.drawn(model, x))


def test_a_directory_that_is_gone_is_one_line(tmp_path):
    with pytest.raises(RunDirError, match="cannot write"):
        report.save_pictures(tmp_path / "gone", job := assemble(Config()), job.held_out)

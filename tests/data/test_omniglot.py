"""Omniglot, from archives of the right form made here."""

import hashlib
import io
import zipfile

import numpy as np
import pytest
import torch

from pathscore.data import DataError, load_dataset, omniglot


def drawing(row):
    """105×105, white, with one black bar of five pixels' height, as a PNG."""
    from PIL import Image

    pixels = np.full((105, 105), 255, np.uint8)
    pixels[row : row + 5] = 0
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def drawings(tmp_path, monkeypatch):
    """Omniglot's two archives with two characters of two drawings, and one of one, told to torchvision and to us."""
    from torchvision.datasets import Omniglot

    folder = tmp_path / "omniglot-py"
    folder.mkdir()
    content = {"images_background": [(1, 1), (1, 2), (2, 1), (2, 2)], "images_evaluation": [(1, 1)]}
    sums, parts = {}, {}
    for part, members in content.items():
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            for character, who in members:
                archive.writestr(f"{part}/Greek/character{character:02}/{who:02}.png", drawing(10 * character))
        sums[part] = hashlib.md5((folder / f"{part}.zip").read_bytes()).hexdigest()
        parts[part] = (part == "images_background", len(members), len({character for character, _ in members}))
    monkeypatch.setattr(Omniglot, "zips_md5", sums)
    monkeypatch.setattr(omniglot, "PARTS", parts)
    return tmp_path


def test_omniglot_is_unpacked_shrunk_and_inverted(drawings, never_asked):
    data = load_dataset("omniglot", drawings)
    assert data.x.shape == (4, 784) and data.x_test.shape == (1, 784) and data.shape == (1, 28, 28)
    assert sorted(data.labels.tolist()) == [0, 0, 1, 1] and data.labels_test.tolist() == [2]
    image = data.x_test[0].view(28, 28)
    # Rows 10 to 14 of 105 are rows 2⅔ to 4 of 28: a third of row 2, all of row 3, nothing of row 4.
    torch.testing.assert_close(image[:5, 0], torch.tensor([0, 0, 1 / 3, 1, 0]), atol=2 / 255, rtol=0)
    assert (image == image[:, :1]).all() and image[5:].abs().max() == 0
    assert torch.equal(load_dataset("omniglot", drawings).x, data.x)


def test_a_damaged_omniglot_archive_is_refused_by_name(drawings, never_asked):
    path = drawings / "omniglot-py" / "images_evaluation.zip"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="is damaged") as error:
        load_dataset("omniglot", drawings)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:60]), r"/Greek/character0\d/0\d.png is damaged"),
        (lambda path: path.write_bytes(b""), r"/Greek/character0\d/0\d.png is damaged"),
        (lambda path: path.unlink(), " holds 3 drawings, not 4"),
    ],
)
def test_damaged_and_missing_drawings_are_refused_by_name(drawings, never_asked, harm, message):
    load_dataset("omniglot", drawings)
    harm(next((drawings / "omniglot-py" / "images_background").rglob("*.png")))
    with pytest.raises(DataError, match=f"images_background{message}"):
        load_dataset("omniglot", drawings)

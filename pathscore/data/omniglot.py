"""Omniglot: 32 460 drawings of 1 623 characters, from torchvision, resized from 105×105 to 28×28.

    read(data_dir, download) -> train images, train labels, test images, test labels

Images are uint8 (N, 28, 28), with ink 255 on 0 as in MNIST. Labels are int64 (N,); the characters of both parts are
numbered together. The training set is Omniglot's background set (19 280 drawings), the test set its evaluation set
(13 180 drawings of other characters). Published log-likelihoods on "Omniglot 28×28" use another split: both sets mixed,
24 345 and 8 070 drawings.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pathscore.data.network import Unreachable, download_from
from pathscore.data.vision import vision
from pathscore.errors import DataError

PARTS = {"images_background": (True, 19_280, 964), "images_evaluation": (False, 13_180, 659)}
"""Folder and archive: (torchvision's `background`, drawings, characters)."""

SIDE = 28


def read(data_dir: Path, download: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four arrays; takes about 10 s. Missing files are first downloaded into `data_dir` if `download` is true.

    Raises `DataError`, which names the file, for a damaged archive or drawing, and `Unreachable` for a missing archive
    that cannot be downloaded.
    """
    (x, labels), (x_test, labels_test) = (_read_part(part, data_dir, download) for part in PARTS)
    return x, labels, x_test, labels_test + PARTS["images_background"][2]


def _read_part(part: str, data_dir: Path, download: bool) -> tuple[Tensor, Tensor]:
    folder = data_dir / "omniglot-py"
    archive = folder / f"{part}.zip"
    if not archive.is_file() and not download:
        raise Unreachable(f"{archive.name} not in {folder}")
    datasets = vision()
    background, drawings, _ = PARTS[part]
    if not archive.is_file():
        with download_from([datasets.Omniglot.download_url_prefix], f"{archive.name} not in {folder}"):
            datasets.Omniglot(str(data_dir), background=background, download=True)
    elif not datasets.utils.check_integrity(archive, datasets.Omniglot.zips_md5[part]):
        raise DataError(
            f"{archive} is damaged, its md5 is not that of the published file; delete it and run again with a network"
        )
    if not (folder / part).is_dir():
        datasets.utils.extract_archive(str(archive), str(folder))
    images = datasets.Omniglot(str(data_dir), background=background, loader=_shrunk)
    if len(images) != drawings:
        raise DataError(f"{folder / part} holds {len(images)} drawings, not {drawings}: delete it, to unpack it again")
    return _stack(images)


def _shrunk(path: str | Path) -> np.ndarray:
    """A drawing, black ink on white, as (28, 28) bytes with ink 255. Each pixel is the mean of the area it covers."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return 255 - np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))
    except (OSError, SyntaxError, ValueError) as error:
        folder = Path(path).parents[2]
        raise DataError(f"{path} is damaged ({error}): delete {folder}, to unpack it again") from error


def _stack(images: Any) -> tuple[Tensor, Tensor]:
    x = np.empty((len(images), SIDE, SIDE), np.uint8)
    labels = torch.empty(len(images), dtype=torch.int64)
    for i in range(len(images)):
        x[i], labels[i] = images[i]
    return torch.from_numpy(x), labels

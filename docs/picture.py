"""Make the picture of the README, docs/digits.png: `python docs/picture.py`, about fifteen seconds.

It trains the default run and puts two of its pictures on top of each other: reconstructions, and samples of the prior.
"""

import tempfile
from pathlib import Path

import numpy as np
from matplotlib.image import imread, imsave

from pathscore.command.arguments import Invocation
from pathscore.command.train import run
from pathscore.config import Config

HERE = Path(__file__).resolve().parent


def stacked(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures (H, W, C) under each other, (ΣH, max W, C), narrower ones in the middle of a white row."""
    width = max(picture.shape[1] for picture in pictures)
    rows = []
    for picture in pictures:
        left = (width - picture.shape[1]) // 2
        right = width - picture.shape[1] - left
        rows.append(np.pad(picture, ((0, 0), (left, right), (0, 0)), constant_values=1.0))
    return np.concatenate(rows)


def main() -> None:
    """Train, and write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        run(Config(elbo="tracegraph"), Invocation(out=folder, quiet=True))
        pictures = [imread(Path(folder) / f"{name}.png") for name in ("reconstructions", "samples")]
    imsave(HERE / "digits.png", stacked(pictures))


if __name__ == "__main__":
    main()

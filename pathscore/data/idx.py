"""MNIST and similar sets: 28×28 images in four idx files, in the folder that torchvision uses.

    read(IdxSet, data_dir, download) -> train images, train labels, test images, test labels

Images are uint8 (N, 28, 28), labels int64 (N,). torchvision's class reads and downloads the files. Before that, each
file is checked by kind, size, header and, where it is known, sha256: torchvision does not notice altered pixels.
"""

import hashlib
import math
import struct
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from pathscore.data.network import Unreachable, download_from
from pathscore.data.vision import vision
from pathscore.errors import DataError

FILES: dict[str, tuple[int, ...]] = {
    "train-images-idx3-ubyte": (60_000, 28, 28),
    "train-labels-idx1-ubyte": (60_000,),
    "t10k-images-idx3-ubyte": (10_000, 28, 28),
    "t10k-labels-idx1-ubyte": (10_000,),
}

REMEDY = "delete it and run again with a network, or copy an intact one there"

IdxArrays = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class IdxSet:
    """A set in four idx files: torchvision's class, which also names the folder, and the known sha256 of the files."""

    cls: str
    sha256: dict[str, str] = field(default_factory=dict)

    def folder(self, data_dir: Path) -> Path:
        """The folder of the files in `data_dir`."""
        return data_dir / self.cls / "raw"


MNIST = IdxSet(
    "MNIST",
    {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
)
FASHION_MNIST = IdxSet("FashionMNIST")


def damage(path: Path, shape: tuple[int, ...], sha256: str | None = None) -> str | None:
    """What is wrong with an idx file of unsigned bytes that should hold `shape`; None if it is correct."""
    content = path.read_bytes()
    size = 4 + 4 * len(shape) + math.prod(shape)
    if not content:
        return "is empty"
    if content.lstrip()[:1] == b"<":
        return "is a web page, not data: a login or error page was saved in its place"
    if content[:2] == b"\x1f\x8b":
        return "is still compressed: rename it to end in .gz"
    if content[:4] != bytes([0, 0, 8, len(shape)]):
        return f"is not an idx file of bytes with {len(shape)} dimensions: it starts with {content[:4].hex(' ')}"
    counts = struct.unpack_from(f">{len(shape)}I", content.ljust(size, b"\0"), 4)
    if counts != shape:
        return f"holds {'×'.join(map(str, counts))} values, not {'×'.join(map(str, shape))}"
    if len(content) != size:
        return f"has {len(content)} bytes, not {size}: it is {'truncated' if len(content) < size else 'too long'}"
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        return "has been altered: its sha256 is not that of the published file"
    return None


def read(source: IdxSet, data_dir: Path, download: bool) -> IdxArrays:
    """The four arrays of a set. Missing files are first downloaded into `data_dir` if `download` is true.

    Raises `DataError`, which names the file, for a damaged file, and `Unreachable` for a missing file that cannot be
    downloaded.
    """
    folder = source.folder(data_dir)
    present = [name for name in FILES if (folder / name).is_file()]
    _check(source, folder, present)  # before a download, which would leave what is there as it is
    if len(present) < len(FILES):
        _fetch(source, data_dir, download)
        _check(source, folder, list(FILES))
    cls = getattr(vision(), source.cls)
    train, test = cls(str(data_dir), train=True), cls(str(data_dir), train=False)
    return train.data, train.targets, test.data, test.targets


def _check(source: IdxSet, folder: Path, names: list[str]) -> None:
    for name in names:
        found = damage(folder / name, FILES[name], source.sha256.get(name))
        if found:
            raise DataError(f"{folder / name} {found}; {REMEDY}")


def _fetch(source: IdxSet, data_dir: Path, download: bool) -> None:
    """Download or unpack missing files with torchvision."""
    folder = source.folder(data_dir)
    missing = f"{', '.join(name for name in FILES if not (folder / name).is_file())} not in {folder}"
    packed = [folder / f"{name}.gz" for name in FILES]
    if not download and not all(path.is_file() for path in packed):
        raise Unreachable(missing)
    cls = getattr(vision(), source.cls)
    for path, (_, md5) in zip(packed, cls.resources, strict=True):
        if path.is_file() and hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != md5:
            raise DataError(f"{path} is damaged, its md5 is not that of the published file; {REMEDY}")
    # With every archive in place torchvision only unpacks, and needs no network.
    with download_from([] if all(path.is_file() for path in packed) else cls.mirrors, missing):
        cls(str(data_dir), download=True)

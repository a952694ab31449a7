"""Images from where they lie: MNIST's IDX files and CIFAR-10's binary files in a local folder, scikit-learn's digits.

Each data set comes as `RawImages`. Files are foreign bytes: a size in a header is believed only as far as the file
bears it out, and every fault names the file, what was found in it and what was expected.
"""

import gzip
import zlib
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from decentral.config import KeyPath
from decentral.errors import ConfigError, MissingEnvironmentError
from decentral.seeding import stream

UNSIGNED_BYTE = 0x08
"""IDX's code for elements of one unsigned byte."""

LARGEST_BYTES = 1 << 30
"""Size that an IDX file may declare; MNIST's largest has 47 million bytes."""

BLOCK_BYTES = 1 << 20

CIFAR_RECORD_BYTES = 1 + 3 * 32 * 32
"""One label, then the red, green and blue planes, row by row."""


class RawImages(NamedTuple):
    train_images: Tensor  # (N, C, H, W) uint8
    train_labels: Tensor  # (N,) int64
    test_images: Tensor  # (M, C, H, W) uint8
    test_labels: Tensor  # (M,) int64


def digits(test_fraction: float) -> RawImages:
    """scikit-learn's 1,797 handwritten digits, 8 by 8, levels 0 to 16; the test images are the same in every run.

    Args:
        test_fraction: share of each class that is held out, to one image; at least one, and never all.

    Raises:
        MissingEnvironmentError: scikit-learn is not installed.
    """
    rows = np.loadtxt(_digits_file(), delimiter=",", dtype=np.uint8)  # 64 levels and the label
    images = torch.from_numpy(rows[:, :-1].reshape(-1, 1, 8, 8).copy())
    labels = torch.from_numpy(rows[:, -1].astype(np.int64))
    held_out = torch.from_numpy(_stratified(labels.numpy(), test_fraction))
    return RawImages(images[~held_out], labels[~held_out], images[held_out], labels[held_out])


def _digits_file() -> Path:
    """Where scikit-learn keeps the images. Importing it would cost each rank's start a quarter of its time."""
    found = find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise MissingEnvironmentError(
            "data 'digits' comes with scikit-learn, which is not installed; run: pip install 'decentral[data]'"
        )
    return Path(found.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")


def _stratified(labels: np.ndarray, fraction: float) -> np.ndarray:
    """A mask `(N,)` with the fraction of each class set, drawn from a stream that no run's seed moves."""
    rng = stream(0, -1, "digits test images")
    mask = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        mask[members[: min(max(1, round(fraction * len(members))), len(members) - 1)]] = True
    return mask


def mnist(root: Path, at: KeyPath) -> RawImages:
    """MNIST, or a set of its format with labels 0 to 9, from the four IDX files (`.gz` or not) in `root`.

    Raises:
        ConfigError: a file is missing, is not IDX, is too short or too long, or does not fit its sibling.
    """
    train_images, train_labels = _labeled_idx(root, "train", at)
    test_images, test_labels = _labeled_idx(root, "t10k", at)
    if train_images.shape[1:] != test_images.shape[1:]:
        raise ConfigError(
            f"{root}: train images are {_by(train_images.shape[1:])} and test images {_by(test_images.shape[1:])}; "
            "expected the same size",
            at,
        )
    return RawImages(train_images.unsqueeze(1), train_labels, test_images.unsqueeze(1), test_labels)


def _labeled_idx(root: Path, part: str, at: KeyPath) -> tuple[Tensor, Tensor]:
    images_path = _present(root, f"{part}-images-idx3-ubyte", at)
    labels_path = _present(root, f"{part}-labels-idx1-ubyte", at)
    images, labels = idx(images_path, 3, at), idx(labels_path, 1, at)
    if len(images) != len(labels):
        raise ConfigError(
            f"{labels_path}: found {len(labels)} labels; expected {len(images)}, one for each image of {images_path}",
            at,
        )
    return images, _ten_classes(labels, labels_path, at)


def _present(root: Path, name: str, at: KeyPath) -> Path:
    for path in (root / name, root / f"{name}.gz"):
        if path.is_file():
            return path
    raise ConfigError(f"{root / name}: no such file, nor with .gz; expected MNIST's four IDX files in this folder", at)


def idx(path: Path, dimensions: int, at: KeyPath) -> Tensor:
    """The bytes of an IDX file, plain or gzipped by its `.gz`, as a uint8 tensor of the shape that its header declares.

    The format: two zero bytes, the element type, the number of dimensions, each dimension as a big-endian 32-bit
    number, the elements (yann.lecun.com/exdb/mnist).

    Raises:
        ConfigError: the file cannot be read, or is anything but such a file of unsigned bytes, to the last byte.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            shape = _idx_shape(file.read(4), file.read(4 * dimensions), path, dimensions, at)
            elements = _exactly(file, prod(shape), path, at)
    except (OSError, EOFError, zlib.error) as error:
        kind = "a gzip file of IDX" if path.suffix == ".gz" else "an IDX file"
        raise ConfigError(f"{path}: cannot be read ({error}); expected {kind}; fetch it again", at) from error
    return torch.frombuffer(elements, dtype=torch.uint8).view(shape)


def _idx_shape(magic: bytes, sizes: bytes, path: Path, dimensions: int, at: KeyPath) -> tuple[int, ...]:
    expected = bytes((0, 0, UNSIGNED_BYTE, dimensions))
    if magic != expected:
        found = f"magic number 0x{magic.hex()}" if magic else "an empty file"
        raise ConfigError(
            f"{path}: found {found}; expected 0x{expected.hex()} ({dimensions}-dimensional IDX bytes)", at
        )
    if len(sizes) < 4 * dimensions:
        raise ConfigError(f"{path}: the header ends after {4 + len(sizes)} bytes; expected {4 + 4 * dimensions}", at)
    shape = tuple(int(size) for size in np.frombuffer(sizes, dtype=">u4"))
    if not 0 < prod(shape) <= LARGEST_BYTES:
        raise ConfigError(f"{path}: the header declares {_by(shape)} bytes; expected 1 to {LARGEST_BYTES:,} in all", at)
    return shape


def _exactly(file: IO[bytes] | gzip.GzipFile, count: int, path: Path, at: KeyPath) -> bytearray:
    """The file's last `count` bytes, read by blocks, so that memory follows what is there and not what is declared."""
    content = bytearray()
    while len(content) <= count and (block := file.read(min(BLOCK_BYTES, count + 1 - len(content)))):
        content += block
    if len(content) != count:
        found = f"only {len(content):,}" if len(content) < count else "more"
        raise ConfigError(f"{path}: the header declares {count:,} bytes of data, found {found}; fetch it again", at)
    return content


def cifar10(root: Path, at: KeyPath) -> RawImages:
    """CIFAR-10 from its binary version: `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin` in `root`.

    Raises:
        ConfigError: a file is missing, is no whole number of records, or has a label above 9.
    """
    batches = [cifar_batch(root / f"data_batch_{number}.bin", at) for number in range(1, 6)]
    train_images, train_labels = (torch.cat(tensors) for tensors in zip(*batches, strict=True))
    return RawImages(train_images, train_labels, *cifar_batch(root / "test_batch.bin", at))


def cifar_batch(path: Path, at: KeyPath) -> tuple[Tensor, Tensor]:
    """Images `(N, 3, 32, 32)` uint8 and labels `(N,)` int64 of one file of 3,073-byte records.

    Raises:
        ConfigError: as for `cifar10`.
    """
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); expected a file of CIFAR-10's binary version", at
        ) from error
    if len(content) == 0 or len(content) % CIFAR_RECORD_BYTES:
        raise ConfigError(
            f"{path}: found {len(content):,} bytes; expected a positive multiple of {CIFAR_RECORD_BYTES:,}, "
            "a record's size; fetch it again",
            at,
        )
    records = torch.from_numpy(content).view(-1, CIFAR_RECORD_BYTES)
    return records[:, 1:].reshape(-1, 3, 32, 32), _ten_classes(records[:, 0], path, at)


def _ten_classes(labels: Tensor, path: Path, at: KeyPath) -> Tensor:
    if int(labels.max()) > 9:
        raise ConfigError(f"{path}: found label {int(labels.max())}; expected 0 to 9", at)
    return labels.to(torch.int64)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))

"""Files of the real formats are read to the byte; every corruption is told with the file, found and expected."""

import gzip
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from decentral import config
from decentral.errors import ConfigError, MissingEnvironmentError
from decentral.training import readers
from decentral.training.data import load

AT = ("data", "root")


def idx_bytes(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def images_of(count, seed=0, shape=(28, 28)):
    return np.random.default_rng(seed).integers(256, size=(count, *shape), dtype=np.uint8)


def labels_of(count, seed=0):
    return np.random.default_rng(seed).integers(10, size=count, dtype=np.uint8)


def cifar_records(count, seed=0):
    records = np.random.default_rng(seed).integers(256, size=(count, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    return records


@pytest.fixture
def mnist_folder(tmp_path):
    for part, count in (("train", 12), ("t10k", 5)):
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx_bytes(images_of(count)))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx_bytes(labels_of(count)))
    return tmp_path


@pytest.fixture
def cifar_folder(tmp_path):
    for number in range(1, 6):
        (tmp_path / f"data_batch_{number}.bin").write_bytes(cifar_records(3, number).tobytes())
    (tmp_path / "test_batch.bin").write_bytes(cifar_records(2, 9).tobytes())
    return tmp_path


def zipped(folder):
    for path in list(folder.iterdir()):
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()


def fault(read, *arguments):
    with pytest.raises(ConfigError) as caught:
        read(*arguments, AT)
    assert caught.value.at == AT
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("compressed", [False, True])
def test_mnist_comes_back_as_written(mnist_folder, compressed):
    if compressed:
        zipped(mnist_folder)
    raw = readers.mnist(mnist_folder, AT)
    assert raw.train_images.shape == (12, 1, 28, 28)
    assert np.array_equal(raw.train_images[:, 0].numpy(), images_of(12))
    assert raw.train_labels.tolist() == labels_of(12).tolist()
    assert raw.test_images.shape == (5, 1, 28, 28)
    assert raw.test_labels.dtype == torch.int64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"found an empty file; expected 0x00000803"),
        (b"\x00\x00", r"found magic number 0x0000; expected 0x00000803"),
        (b"\x89PNG\r\n\x1a\n", r"found magic number 0x89504e47; expected 0x00000803"),
        (struct.pack(">BBBB3I", 0, 0, 0x0D, 3, 1, 1, 1) + b"\0\0\0\0", r"magic number 0x00000d03; expected 0x00000803"),
        (idx_bytes(labels_of(5)), r"found magic number 0x00000801; expected 0x00000803"),
        (struct.pack("<I3I", 0x803, 1, 28, 28) + bytes(784), r"found magic number 0x03080000"),
        (idx_bytes(images_of(2))[:9], r"the header ends after 9 bytes; expected 16"),
        (idx_bytes(images_of(2))[:-1], r"declares 1,568 bytes of data, found only 1,567"),
        (idx_bytes(images_of(2)) + b"\0", r"declares 1,568 bytes of data, found more"),
        (idx_bytes(np.zeros((0, 28, 28), np.uint8)), r"declares 0 x 28 x 28 bytes"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, *[2**32 - 1] * 3), r"declares 4294967295 x .* expected 1 to 1,073,741,824"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 2**20, 32, 32), r"declares 1,073,741,824 bytes of data, found only 0"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_a_corrupt_idx_file_is_refused(tmp_path, content, message, compressed):
    path = tmp_path / ("images.gz" if compressed else "images")
    path.write_bytes(gzip.compress(content) if compressed else content)
    text = fault(readers.idx, path, 3)
    assert text.startswith(f"{path}: ")
    assert re.search(message, text)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-8] + b"\0" * 8,
        lambda whole: whole[:99] + bytes([whole[99] ^ 0xFF]) + whole[100:],
        lambda whole: b"not gzip at all",
    ],
    ids=["truncated", "wrong checksum", "flipped bits", "no gzip"],
)
def test_a_damaged_gzip_file_is_refused(tmp_path, damage):
    path = tmp_path / "images.gz"
    path.write_bytes(damage(gzip.compress(idx_bytes(images_of(3)))))
    text = fault(readers.idx, path, 3)
    assert text.startswith(f"{path}: ")
    assert "fetch it again" in text


def test_a_gzip_bomb_is_not_unpacked_beyond_what_its_header_declares(tmp_path, monkeypatch):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx_bytes(images_of(1)) + bytes(50_000_000)))
    asked = []
    read = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, size=-1: asked.append(size) or read(self, size))
    assert "found more" in fault(readers.idx, path, 3)
    assert 0 < sum(asked) <= 16 + 785
    assert min(asked) > 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train-labels-idx1-ubyte", None, "no such file, nor with .gz; expected MNIST's four IDX files"),
        ("t10k-images-idx3-ubyte", None, "no such file, nor with .gz"),
        ("train-labels-idx1-ubyte", idx_bytes(labels_of(11)), "found 11 labels; expected 12, one for each image of"),
        ("t10k-labels-idx1-ubyte", idx_bytes(np.full(5, 10, np.uint8)), "found label 10; expected 0 to 9"),
        ("t10k-images-idx3-ubyte", idx_bytes(images_of(5, shape=(8, 8))), "train images are 28 x 28 and test images 8"),
    ],
)
def test_mnist_files_must_fit_together(mnist_folder, name, content, message):
    (mnist_folder / name).unlink()
    if content is not None:
        (mnist_folder / name).write_bytes(content)
    text = fault(readers.mnist, mnist_folder)
    assert message in text
    assert str(mnist_folder) in text


def test_cifar10_comes_back_as_written(cifar_folder):
    raw = readers.cifar10(cifar_folder, AT)
    assert raw.train_images.shape == (15, 3, 32, 32)
    assert raw.test_images.shape == (2, 3, 32, 32)
    second = cifar_records(3, 2)
    assert raw.train_labels[3:6].tolist() == second[:, 0].tolist()
    assert raw.train_images[4, 1, 2, 3] == second[1, 1 + 1024 + 2 * 32 + 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read (No such file or directory); expected a file of CIFAR-10's binary version"),
        (b"", "found 0 bytes; expected a positive multiple of 3,073"),
        (cifar_records(2).tobytes()[:-1], "found 6,145 bytes; expected a positive multiple of 3,073"),
        (cifar_records(2).tobytes() + b"\0", "found 6,147 bytes"),
        (b"\x0a" + bytes(3072), "found label 10; expected 0 to 9"),
    ],
)
def test_a_corrupt_cifar_file_is_refused(cifar_folder, content, message):
    path = cifar_folder / "data_batch_3.bin"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    text = fault(readers.cifar10, cifar_folder)
    assert text.startswith(f"{path}: ")
    assert message in text


def test_digits_hold_out_the_same_share_of_each_class():
    raw = readers.digits(0.2)
    assert len(raw.train_images) + len(raw.test_images) == 1797
    assert raw.train_images.shape[1:] == (1, 8, 8)
    held = torch.bincount(raw.test_labels)
    whole = held + torch.bincount(raw.train_labels)
    assert ((held - 0.2 * whole).abs() <= 0.5).all()
    assert torch.equal(readers.digits(0.2).test_images, raw.test_images)


@pytest.mark.parametrize("fraction", [1e-6, 1 - 1e-6])
def test_digits_keep_every_class_on_both_sides(fraction):
    raw = readers.digits(fraction)
    assert len(raw.train_labels.unique()) == len(raw.test_labels.unique()) == 10


def test_without_scikit_learn_digits_say_what_to_install(monkeypatch):
    monkeypatch.setattr(readers, "find_spec", lambda name: None)
    with pytest.raises(MissingEnvironmentError, match=r"pip install 'decentral\[data\]'"):
        readers.digits(0.2)


def test_digits_are_those_that_scikit_learn_loads():
    """The file is read without it: a change of its place or form must not pass unseen."""
    bundle, rows = load_digits(), np.loadtxt(readers._digits_file(), delimiter=",", dtype=np.uint8)
    np.testing.assert_array_equal(rows[:, :-1].reshape(-1, 8, 8), bundle.images)
    np.testing.assert_array_equal(rows[:, -1], bundle.target)


def check_standardized(data, channels):
    mean = data.train_inputs.double().mean(dim=(0, 2, 3))
    deviation = data.train_inputs.double().std(dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros(channels, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(deviation, torch.ones(channels, dtype=torch.float64), rtol=0, atol=1e-5)
    assert (data.classes, data.outputs, data.shards) == (10, 10, None)
    assert data.train_targets.dtype == torch.int64


def test_digits_are_standardized_and_the_same_for_every_seed():
    section = config.Digits(name="digits")
    data, other = (load(section, 8, seed, Path(), torch.float64) for seed in (0, 1))
    check_standardized(data, 1)
    assert data.sample_shape == (1, 8, 8)
    assert torch.equal(data.train_inputs, other.train_inputs)
    assert load(section, 8, 0, Path(), torch.float32).test_inputs.dtype == torch.float32


def test_mnist_is_found_from_the_experiments_folder(mnist_folder):
    section = config.MNIST(name="mnist", root=mnist_folder.name)
    data = load(section, 2, 0, mnist_folder.parent, torch.float32)
    check_standardized(data, 1)
    assert data.sample_shape == (1, 28, 28)


def test_cifar10_is_standardized_per_channel(cifar_folder):
    for number in range(1, 6):
        path = cifar_folder / f"data_batch_{number}.bin"
        records = np.fromfile(path, np.uint8).reshape(-1, 3073)
        records[:, 1:1025] //= 4
        path.write_bytes(records.tobytes())
    data = load(config.CIFAR10(name="cifar10", root=cifar_folder), 2, 0, Path(), torch.float32)
    check_standardized(data, 3)


def test_a_channel_of_one_value_becomes_zero(cifar_folder):
    for number in range(1, 6):
        (cifar_folder / f"data_batch_{number}.bin").write_bytes(b"\x01" + bytes([7] * 3072))
    data = load(config.CIFAR10(name="cifar10", root=cifar_folder), 2, 0, Path(), torch.float32)
    assert not data.train_inputs.any()
    assert data.test_inputs.isfinite().all()

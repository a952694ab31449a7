"""Kernels for a GPU, in Triton's interpreter, beside the passes for main memory: every byte the same.

The interpreter takes tensors in main memory, so both sides are given the same ones. It is chosen when triton is first
imported, for the whole process. No test here has run on a GPU.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from decentral.compression import Compressor, casting, compressor, compressor_of
from decentral.compression.compressor import Space
from tests.compression.entries import KEY, LAYOUT, SIZE, drawn, same_bits

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed; pip install triton")
os.environ.setdefault("TRITON_INTERPRET", "1")

ENTRIES = {
    "none": {"name": "none"},
    "bf16": {"name": "bf16"},
    "fp16": {"name": "fp16"},
    "int8": {"name": "int8"},
    "int8 to the nearest, blocks of 100": {"name": "int8", "rounding": "nearest", "block": 100},
    "int8, blocks of more than a tile": {"name": "int8", "block": 5000},
    "sign": {"name": "sign"},
    "sign of the vector": {"name": "sign", "norms": "vector"},
    "top-k": {"name": "top-k", "fraction": 0.1},
    "top-k then int8": {"name": "top-k", "fraction": 0.1, "values": "int8"},
    "threshold then fp16": {"name": "threshold", "fraction": 0.02, "values": {"name": "fp16"}},
}
EDGES = [1, 511, 513, 4097]


def made(name: str, size: int) -> Compressor:
    return compressor_of(ENTRIES[name], Space(size, torch.float32, LAYOUT if size == SIZE else ()))


@contextmanager
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Vectors in main memory go to the kernels, as those on a GPU do."""
    with monkeypatch.context() as patched:
        for module in (compressor, casting):
            patched.setattr(module, "is_on_gpu", lambda x: not x.is_meta)
        yield


def all_encodings(c: Compressor, x: Tensor, h: Tensor) -> list[Tensor]:
    """Messages of the three encodings, and what they leave behind; sums and the vector, from them."""
    reference, residual = h.clone(), x.clone()
    plain = c.encode(x, c.message(), KEY)
    of_difference = c.encode_difference(x, reference, c.message().fill_(0xFF), KEY, step=0.3)
    of_residual = c.encode_residual(residual, c.message().fill_(0xFF), KEY)
    out, sums, wide = torch.full_like(x, 7.0), h.clone(), h.double()
    messages = {4: plain, 1: of_difference}
    c.decode(plain, out, KEY)
    c.add(sums, {4: 0.7, 1: -0.1}, messages, KEY)
    c.add(wide, {4: 0.7, 1: 0.1}, messages, KEY)
    return [plain, of_difference, of_residual, reference, residual, out, sums, wide]


@pytest.mark.parametrize("size", [*EDGES, SIZE])
@pytest.mark.parametrize("name", ENTRIES)
def test_a_gpu_and_main_memory_say_the_same(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, h = drawn(size), drawn(size, seed=1) * 0.1
    h[: size // 4] = x[: size // 4]  # zeros are sent too
    expected = all_encodings(made(name, size), x, h)
    with kernels(monkeypatch):
        found = all_encodings(made(name, size), x, h)
    for index, (one, other) in enumerate(zip(expected, found, strict=True)):
        assert same_bits(one, other), f"the tensor at {index}"

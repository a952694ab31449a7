"""Kernels for a GPU beside the passes for main memory: every byte the same.

Without a GPU, Triton's interpreter runs them on tensors in main memory, and the kernels are then what those are given
to. It is chosen when triton is first imported, for the whole process.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from decentral.algorithms import public_copy
from decentral.algorithms.choco import Choco
from decentral.compression import Compressor, MalformedMessageError, Space, casting, compressor, compressor_of
from decentral.errors import DivergedError
from tests.compression.entries import KEY, LAYOUT, SIZE, drawn, same_bits
from tests.contract.problems import flat, graph
from tests.contract.runs import sgd, simulate

pytestmark = [
    pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed; pip install triton"),
    pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning"),  # numpy's, in the interpreter
]

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
SIZES = [1, 513, 4096, 4097]  # a tile has 4096
PLACE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module", autouse=True)
def interpreter() -> Iterator[None]:
    """Triton with the interpreter, where there is no GPU."""
    with pytest.MonkeyPatch.context() as patched:
        if PLACE == "cpu":
            if "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1":
                pytest.skip("triton was imported without its interpreter; run this file in a process of its own")
            patched.setenv("TRITON_INTERPRET", "1")
        import decentral.compression.kernels.launch  # noqa: F401

        yield


@contextmanager
def kernels() -> Iterator[None]:
    """Vectors in main memory go where those on a GPU go."""
    with pytest.MonkeyPatch.context() as patched:
        if PLACE == "cpu":
            for module in (compressor, casting):
                patched.setattr(module, "is_on_gpu", lambda x: not x.is_meta)
        yield


def made(name: str, size: int) -> Compressor:
    return compressor_of(ENTRIES[name], Space(size, torch.float32, LAYOUT if size == SIZE else ()))


def encodings(c: Compressor, x: Tensor, h: Tensor) -> list[Tensor]:
    """Messages of the three encodings, what they leave behind, and the vector and sums that are made of them."""
    reference, residual, empty = h.clone(), x.clone(), c.message(x.device).fill_(0xFF)
    plain = c.encode(x, empty.clone(), KEY)
    of_difference = c.encode_difference(x, reference, empty.clone(), KEY, step=0.3)
    of_residual = c.encode_residual(residual, empty.clone(), KEY)
    out, sums, wide = torch.full_like(x, 7.0), h.clone(), h.double()
    c.decode(plain, out, KEY)
    messages = {4: plain, 1: of_difference}
    c.add(sums, {4: 0.7, 1: -0.1}, messages, KEY)
    c.add(wide, {4: 0.7, 1: 0.1}, messages, KEY)
    return [plain, of_difference, of_residual, reference, residual, out, sums, wide]


def compared(c: Compressor, x: Tensor, h: Tensor) -> None:
    expected = encodings(c, x, h)
    with kernels():
        found = encodings(c, x.to(PLACE), h.to(PLACE))
    assert [same_bits(one, other.cpu()) for one, other in zip(expected, found, strict=True)] == [True] * 8


@pytest.mark.parametrize("size", [*SIZES, SIZE])
@pytest.mark.parametrize("name", ENTRIES)
def test_a_gpu_and_main_memory_say_the_same(name: str, size: int) -> None:
    x, h = drawn(size), drawn(size, seed=1) * 0.1
    h[: size // 4] = x[: size // 4]  # zeros are sent too
    h[size // 4 : size // 3] = 0.0  # and so is -0
    compared(made(name, size), x, h)


@pytest.mark.parametrize("name", ["int8", "int8 to the nearest, blocks of 100", "int8, blocks of more than a tile"])
def test_blocks_too_small_to_divide_by_are_zeros(name: str) -> None:
    x = drawn(6000) * 1e-40
    x[5500:] = 2.0**-120
    compared(made(name, 6000), x, torch.zeros(6000))


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize(
    "draw",
    [lambda: drawn(20_000), lambda: torch.ones(20_000), lambda: torch.arange(20_000).eq(4097).float()],
    ids=["normal", "all equal, where a sample misleads", "one and zeros"],
)
def test_the_same_numbers_are_largest(draw: Callable[[], Tensor], coarse: bool) -> None:
    """With a sample, and of equal numbers those of lower index."""
    name = "threshold" if coarse else "top-k"
    compared(compressor_of({"name": name}, Space(20_000, torch.float32)), draw(), torch.zeros(20_000))


@pytest.mark.parametrize("name", ENTRIES)
def test_numbers_that_cannot_be_sent_are_counted(name: str) -> None:
    c, x = made(name, 5001), drawn(5001)
    x[3], x[4500], x[5000] = float("nan"), float("-inf"), float("inf")
    with kernels(), pytest.raises(DivergedError, match="node 3 diverged in round 17: 3 of the 5001 numbers"):
        c.encode(x.to(PLACE), c.message(PLACE), KEY)


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_numbers_between_two_of_a_format_are_rounded_as_in_main_memory(name: str) -> None:
    form = {"bf16": torch.bfloat16, "fp16": torch.float16}[name]
    patterns = torch.arange(0, 0x7C00, 5, dtype=torch.int32)
    below, above = ((patterns + i).to(torch.int16).view(form).double() for i in range(2))
    middles = ((below + above) / 2).float()[:-1]
    x = torch.cat([middles, -middles, torch.nextafter(middles, torch.zeros(1))])
    compared(compressor_of(name, Space.of(x)), x, torch.zeros_like(x))


def test_many_numbers_are_drawn_alike() -> None:
    """So many that a relative difference of 2^-22 in what they are multiplied by shows."""
    x = torch.rand(300_000, generator=torch.Generator().manual_seed(3)) + 3
    c = compressor_of("int8", Space.of(x))
    expected = c.encode(x, c.message(), KEY)
    with kernels():
        assert torch.equal(c.encode(x.to(PLACE), c.message(PLACE), KEY).cpu(), expected)


@pytest.mark.parametrize(("name", "beyond"), [("bf16", (2 - 2**-8) * 2.0**127), ("fp16", 65520.0)])
def test_the_first_number_beyond_a_format_is_refused(name: str, beyond: float) -> None:
    first = torch.tensor([beyond, 1.0])
    c = compressor_of(name, Space.of(first))
    below = torch.nextafter(first, torch.zeros(2)).to(PLACE)
    with kernels():
        c.encode(below, c.message(PLACE), KEY)
        with pytest.raises(DivergedError, match="1 of the 2 numbers"):
            c.encode(first.to(PLACE), c.message(PLACE), KEY)


@pytest.mark.parametrize("name", ENTRIES)
def test_bytes_that_no_sender_wrote_are_refused_as_in_main_memory(name: str) -> None:
    """Either side refuses a message, or both decode it to the same; what is refused leaves no trace."""
    c, generator = made(name, 77), torch.Generator().manual_seed(4)
    good = c.encode(drawn(77), c.message(), KEY)
    decoded = 0
    for turn in range(24):
        message = good.clone()
        if turn:
            place = (
                c.bytes - 1 - turn // 8 if turn % 3 == 0 else int(torch.randint(0, c.bytes, (), generator=generator))
            )
            message[place] = (0x80, 0xFF, 0x7C, 0x01)[turn % 4]
        out = torch.full((77,), 7.0)
        with kernels():
            found = out.to(PLACE)
            try:
                c.decode(message.to(PLACE), found, KEY)
            except MalformedMessageError:
                refused = True
            else:
                refused = False
        if refused:
            assert (found == 7.0).all()
            with pytest.raises(MalformedMessageError):
                c.decode(message, out, KEY)
        else:
            assert same_bits(c.decode(message, out, KEY), found.cpu())
            decoded += 1
    assert decoded > 0
    with kernels(), pytest.raises(MalformedMessageError, match="required: a message of"):
        c.decode(good[1:].to(PLACE), torch.empty(77, device=PLACE), KEY)


@pytest.mark.parametrize("compression", ["sign", "int8", "top-k"])
@pytest.mark.skipif(PLACE == "cuda", reason="the lockstep driver's nodes are in main memory")
def test_choco_over_kernels_has_the_models_of_main_memory(compression: str) -> None:
    starts = torch.randn(8, 1000, generator=torch.Generator().manual_seed(1))
    algorithm = Choco(local=sgd(0.1), compression=compression, consensus_step=0.3)

    def final() -> np.ndarray[Any, Any]:
        return simulate(algorithm, graph("ring-8"), flat(8), starts, rounds=3).final

    expected = final()
    with kernels(), pytest.MonkeyPatch.context() as patched:
        patched.setattr(public_copy, "is_on_gpu", lambda x: not x.is_meta)
        assert final().tobytes() == expected.tobytes()


@pytest.mark.timeout(600)
def test_all_kernels_compile_and_round_each_operation_by_itself(tmp_path: Path) -> None:
    """The interpreter takes what the compiler refuses, such as a global name in a kernel's annotations."""
    settings = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.compression.compile_kernels"],
        env={**settings, "TRITON_CACHE_DIR": str(tmp_path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len({line.split()[0] for line in lines}) == 15
    assert [line for line in lines if not line.endswith(" 0 0 0")] == []

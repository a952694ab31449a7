"""What compressing costs: every compressor beside a copy of the same vector, interleaved in one run, on a core or GPU.

Times are CPU seconds of this thread, so that what else runs here does not count, except by the memory it takes. On a
GPU they are what its own events say: from the first kernel's start to the last one's end, what the GPU waits for in
between included. The vector is normally distributed, and so is the copy that the difference is taken to, at a tenth of
its size.
"""

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isqrt
from pathlib import Path
from statistics import median
from time import thread_time
from typing import Any

import torch
from torch import Tensor

from decentral.compression import Compressor, Key, Space, compressor_of
from decentral.peer import Block, Layout

SUBJECTS: dict[str, Mapping[str, Any]] = {
    "none": {"name": "none"},
    "bf16": {"name": "bf16"},
    "fp16": {"name": "fp16"},
    "int8, blocks of 512": {"name": "int8"},
    "qsgd, 8 bits": {"name": "qsgd", "bits": 8},
    "qsgd, 4 bits": {"name": "qsgd", "bits": 4},
    "qsgd, 2 bits": {"name": "qsgd", "bits": 2},
    "2 bits, inf-norm, blocks of 512": {"name": "qsgd", "bits": 2, "norm": "inf", "block": 512},
    "natural": {"name": "natural"},
    "sign": {"name": "sign"},
    "top-k, 1 %": {"name": "top-k"},
    "top-k, 1 %, int8 values": {"name": "top-k", "values": {"name": "int8"}},
    "threshold, 1 %": {"name": "threshold"},
    "block-top-k, 1 of 128": {"name": "block-top-k"},
    "random-k, 1 %, shared": {"name": "random-k"},
    "random-k, 1 %, own": {"name": "random-k", "shared": False},
    "sketch, 1 %": {"name": "sketch"},
    "low-rank, rank 1": {"name": "low-rank"},
    "low-rank, rank 4": {"name": "low-rank", "rank": 4},
}


@dataclass(frozen=True)
class Timed:
    """One pass over a vector."""

    median_ms: float
    min_ms: float
    max_ms: float
    gb_s: float  # of the vector's bytes
    over_copy: float  # times the median of a copy

    @classmethod
    def of(cls, seconds: Sequence[float], copy_s: float, vector_bytes: int) -> "Timed":
        middle = median(seconds)
        ends = 1e3 * min(seconds), 1e3 * max(seconds)
        return cls(1e3 * middle, *ends, vector_bytes / middle / 1e9, middle / copy_s)


@dataclass(frozen=True)
class _Subject:
    """A compressor with the vectors that it is timed on."""

    compressor: Compressor
    x: Tensor
    start: Tensor
    reference: Tensor
    message: Tensor

    def encode(self, turn: int) -> float:
        """Seconds of one encoding of a difference, the reference brought up to date."""
        self.reference.copy_(self.start)
        key = Key(0, turn, 0)
        return _seconds(
            lambda: self.compressor.encode_difference(self.x, self.reference, self.message, key), self.x.device
        )

    def add(self, turn: int) -> float:
        """Seconds of one message checked, decoded and added."""
        messages, key = {1: self.message}, Key(0, turn, 0)
        return _seconds(lambda: self.compressor.add(self.reference, {1: 0.5}, messages, key), self.x.device)


def _seconds(action: Callable[[], object], device: torch.device) -> float:
    if device.type == "cpu":
        before = thread_time()
        action()
        return thread_time() - before
    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        start.record()
        action()
        end.record()
        end.synchronize()
        return 1e-3 * float(start.elapsed_time(end))


def subjects_on(device: torch.device) -> list[str]:
    """The keys of SUBJECTS that can be timed there."""
    space = Space(1, torch.float32)
    return [name for name in SUBJECTS if device.type == "cpu" or compressor_of(SUBJECTS[name], space).has_kernels]


def bench_compress(
    parameters: int, repetitions: int, dtype: torch.dtype, names: Sequence[str], device: torch.device
) -> dict[str, Any]:
    """The document that `bench compress` prints.

    Args:
        parameters: d.
        repetitions: turns of each.
        dtype: of the vector.
        names: keys of SUBJECTS; none for all that can be timed there.
        device: where the vectors are.
    """
    generator = torch.Generator().manual_seed(0)
    x, start = (torch.randn(parameters, dtype=dtype, generator=generator).to(device) for _ in range(2))
    start *= 0.1
    reference, space = torch.empty_like(x), Space.of(x, square(parameters))
    subjects = {}
    for name in names or subjects_on(device):
        compressor = compressor_of(SUBJECTS[name], space)
        subjects[name] = _Subject(compressor, x, start, reference, compressor.message(device))
        subjects[name].encode(0)
        subjects[name].add(0)
    copies: list[float] = []
    encodings: dict[str, list[float]] = {name: [] for name in subjects}
    additions: dict[str, list[float]] = {name: [] for name in subjects}
    for turn in range(repetitions):
        for name, subject in subjects.items():
            copies.append(_seconds(lambda: reference.copy_(x), device))
            encodings[name].append(subject.encode(turn))
            additions[name].append(subject.add(turn))
    copy_s = median(copies)
    return {
        "parameters": parameters,
        "dtype": str(dtype).removeprefix("torch."),
        "repetitions": repetitions,
        "clock": "CPU time of one thread" if device.type == "cpu" else "CUDA events",
        "machine": machine() if device.type == "cpu" else torch.cuda.get_device_name(device),
        "device": device.type,
        "copy": asdict(Timed.of(copies, copy_s, x.nbytes)),
        "subjects": [
            {
                "name": name,
                "bytes": subject.compressor.bytes,
                "ratio": x.nbytes / subject.compressor.bytes,
                "encode": asdict(Timed.of(encodings[name], copy_s, x.nbytes)),
                "add": asdict(Timed.of(additions[name], copy_s, x.nbytes)),
            }
            for name, subject in subjects.items()
        ],
    }


def square(parameters: int) -> Layout:
    """One square matrix as large as the vector can hold, and the rest: for compressors that work on matrices."""
    side = isqrt(parameters)
    rest = parameters - side * side
    return (Block("matrix", (side, side), 0), *([Block("rest", (rest,), side * side)] if rest else []))


def machine() -> str:
    """The processor, as the system names it."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text().splitlines() if cpus.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()

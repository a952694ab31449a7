"""A sketch: m signed sums of the numbers, by signs that all nodes share. Linear, so means of sketches are sketches.

Number i goes to sum b = i mod m with a random sign s_i; with n_b numbers in sum b,

    S_b = (1 / n_b) sum over its numbers of s_i x_i;    C(x)_i = s_i S_b

is the orthogonal projection of x onto m random directions, and E C(x)_i = x_i / n_b. So delta = m / d where m divides
d, else 1 / ceil(d / m); and times n_b it is unbiased, with omega = ceil(d / m) - 1. It is a count sketch (Charikar,
Chen and Farach-Colton 2002) of one row, whose buckets are dealt in turn.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from decentral.compiled import compiled
from decentral.compression.compressor import Array, Compressor, MalformedMessageError, Sink, Source
from decentral.compression.key import Key, drawn, halves
from decentral.compression.passes import infinity, load, settle, unfit_in
from decentral.compression.random_k import required_stream
from decentral.fused import CHUNK


@dataclass(frozen=True)
class Sketch(Compressor):
    """The sums, then the 64 bits of the shared stream, so that another round's message is told apart.

    Args:
        sums: m, from 1 to d.
        unbiased: whether C is unbiased, or contractive.
    """

    sums: int
    unbiased: bool = False

    @property
    def bytes(self) -> int:
        return self.sums * self.space.number_bytes + 8

    @property
    def _deepest(self) -> int:
        return -(-self.space.size // self.sums)

    @property
    def contraction(self) -> float | None:
        return None if self.unbiased else 1 / self._deepest

    @property
    def variance(self) -> float | None:
        return self._deepest - 1 if self.unbiased else None

    @property
    def linear(self) -> bool:
        return True

    @property
    def summed_bytes(self) -> int:
        return self.bytes - 8

    def _encode(self, source: Source, out: Array, key: Key, memory: Tensor | None) -> int:  # noqa: ARG002
        sums = out[:-8].view(self.space.number)
        stream = halves(key.shared)
        sums[:] = 0
        unfit = int(_sum(source.x, source.reference, sums, infinity(self.space.number), *stream))
        if not self.unbiased:
            sums /= -(-(self.space.size - np.arange(self.sums)) // self.sums).astype(self.space.number)
        unfit = unfit or int(np.count_nonzero(~np.isfinite(sums)))
        out[-8:] = np.array([key.shared], np.uint64).view(np.uint8)
        if not unfit and source.target.size:
            _spread(sums, infinity(self.space.number), source.target, source.step, True, *stream)
        return unfit

    def _checked(self, message: Array, key: Key) -> Array:
        required_stream(int.from_bytes(message[-8:].tobytes(), "little"), key)
        sums: Array = message[:-8].view(self.space.number)
        if not np.isfinite(sums).all():
            raise MalformedMessageError("found sums that are not finite; required: finite ones")
        return sums

    def _decode(self, parts: Array, sink: Sink, key: Key) -> None:
        _spread(parts, infinity(self.space.number), *sink, *halves(key.shared))


@compiled
def _sum(x: Any, reference: Any, sums: Any, limit: Any, low: Any, high: Any) -> Any:
    u = np.empty(CHUNK, x.dtype)
    unfit, word = 0, 0
    for first in range(0, x.size, sums.size):
        row = min(sums.size, x.size - first)
        for start in range(0, row, CHUNK):
            size = min(CHUNK, row - start)
            load(u[:size], x, reference, first + start)
            unfit += unfit_in(u[:size], limit)
            word = _flip(u[:size], limit, low, high, word)
            part = sums[start : start + size]
            for i in range(size):
                part[i] += u[i]
    return unfit


@compiled
def _spread(sums: Any, like: Any, target: Any, weight: Any, adding: Any, low: Any, high: Any) -> None:
    u = np.empty(CHUNK, sums.dtype)
    word = 0
    for first in range(0, target.size, sums.size):
        row = min(sums.size, target.size - first)
        for start in range(0, row, CHUNK):
            size = min(CHUNK, row - start)
            part = sums[start : start + size]
            for i in range(size):
                u[i] = part[i]
            word = _flip(u[:size], like, low, high, word)
            settle(target, first + start, weight, u[:size], adding)


@compiled
def _flip(values: Any, like: Any, low: Any, high: Any, word: Any) -> Any:
    """Change signs by the stream's bits from its 32-bit number `word` on; returns the number that comes next."""
    bits, number = values.view(like.dtype), like.dtype.type
    width = number(8 * like.itemsize - 1)
    for begin in range(0, values.size, 32):
        drawn_bits = number(drawn(low, high, np.uint32(word)))
        word += 1
        part = bits[begin : min(begin + 32, values.size)]
        for i in range(part.size):
            part[i] ^= number(number(drawn_bits >> number(i)) << width)
    return word

"""Natural compression: every number to one of the two powers of two beside it, at random, so that it is unbiased.

|x| in [2^e, 2^(e+1)) becomes 2^(e+1) with probability |x| / 2^e - 1, else 2^e: sign and exponent are left, 9 bits of
float32 (of float64, 17). omega = 1/8, and so it is contractive too.

Horvath et al. 2019 (arXiv:1905.10988). The random number is added to the significand's bits, where a carry is the
rounding up; below the smallest normal number this rounds to it or to zero, unbiased too. In the topmost octave, where
the next power of two is no number, it rounds down.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from decentral.compiled import compiled
from decentral.compression.compressor import Array, Compressor, MalformedMessageError, Sink, Source
from decentral.compression.key import Key, drawn, halves
from decentral.compression.passes import give_signs, infinity, load, settle, signs_of, unfit_in
from decentral.fused import CHUNK


class Parts(NamedTuple):
    exponents: Array  # (d,)
    words: Array  # (ceil(d / 64),) sign bits


@dataclass(frozen=True)
class Natural(Compressor):
    """Exponents first, biased as the vector's own type has them, then the sign bits, lowest first."""

    @property
    def _exponent(self) -> Any:
        return np.uint16 if self.space.number is np.float64 else np.uint8

    @property
    def _bit_bytes(self) -> int:
        return -(-self.space.size // 8)

    @property
    def bytes(self) -> int:
        return self.space.size * self.space.number_bytes // 4 + self._bit_bytes

    @property
    def variance(self) -> float:
        return 1 / 8

    @property
    def contraction(self) -> float:
        return 7 / 8

    def _encode(self, source: Source, out: Array, key: Key, memory: Tensor | None) -> int:  # noqa: ARG002
        words = np.empty(-(-self.space.size // 64), np.uint64)
        exponents = out[: -self._bit_bytes].view(self._exponent)
        unfit = _encode(*source, exponents, words, infinity(self.space.number), *halves(key.own))
        out[-self._bit_bytes :] = words.view(np.uint8)[: self._bit_bytes]
        return int(unfit)

    def _checked(self, message: Array, key: Key) -> Parts:  # noqa: ARG002
        exponents, words = (
            message[: -self._bit_bytes].view(self._exponent),
            np.zeros(-(-self.space.size // 64), np.uint64),
        )
        words.view(np.uint8)[: self._bit_bytes] = message[-self._bit_bytes :]
        if self.space.size % 8 and message[-1] >> (self.space.size % 8):
            raise MalformedMessageError("found bits behind the last sign; required: zeros")
        limit = 255 if self.space.number is np.float32 else 2047
        if exponents.max() >= limit:
            raise MalformedMessageError(f"found the exponent {exponents.max()}; required: below {limit}")
        return Parts(exponents, words)

    def _decode(self, parts: Parts, sink: Sink, key: Key) -> None:  # noqa: ARG002
        values = np.empty(CHUNK, self.space.number)
        _decode(*parts, infinity(self.space.number), values, *sink)


@compiled
def _encode(
    x: Any,
    reference: Any,
    target: Any,
    step: Any,
    exponents: Any,
    words: Any,
    limit: Any,
    low: Any,
    high: Any,
) -> Any:
    u, number = np.empty(CHUNK, x.dtype), limit.dtype.type
    bits, magnitude = u.view(limit.dtype), ~number(0) >> number(1)
    mantissa = number(52 if limit.itemsize == 8 else 23)
    unfit = 0
    for start in range(0, x.size, CHUNK):
        size = min(CHUNK, x.size - start)
        load(u[:size], x, reference, start)
        unfit += unfit_in(u[:size], limit)
        part, topmost = exponents[start : start + size], (limit[0] >> mantissa) - number(1)
        for i in range(size):
            # 23 random bits where the significand begins; of a double, 32 of its 52
            noise = drawn(low, high, np.uint32(start + i))
            if limit.itemsize == 8:
                carried = (bits[i] & magnitude) + (number(noise) << number(20))
            else:
                carried = (bits[i] & magnitude) + number(noise >> np.uint32(9))
            part[i] = min(carried >> mantissa, topmost)
        signs = words[start // 64 : (start + size + 63) // 64]
        signs_of(signs, u, size, limit)
        if target.size:
            _values(u[:size], part, signs, limit)
            settle(target, start, step, u[:size], True)
    return unfit


@compiled
def _decode(exponents: Any, words: Any, like: Any, values: Any, target: Any, weight: Any, adding: Any) -> None:
    for start in range(0, target.size, CHUNK):
        size = min(CHUNK, target.size - start)
        _values(values[:size], exponents[start : start + size], words[start // 64 : (start + size + 63) // 64], like)
        settle(target, start, weight, values[:size], adding)


@compiled
def _values(values: Any, exponents: Any, words: Any, like: Any) -> None:
    bits = values.view(like.dtype)
    mantissa = like.dtype.type(52 if like.itemsize == 8 else 23)
    for i in range(values.size):
        bits[i] = like.dtype.type(exponents[i]) << mantissa
    give_signs(values, words, like)

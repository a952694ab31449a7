"""Integers of a few bits, rounded at random, in units of a norm: QSGD, and int8 in blocks.

With s = 2^(bits - 1) - 1 levels and N the norm of x, or of each block of it:

    l_i = floor(s x_i / N + r_i), r_i uniform in [0, 1);    C(x)_i = (N / s) l_i

which is unbiased, since E l_i = s x_i / N. A number's variance is at most (N / s)^2 / 4 and at most |x_i| N / s, and N
at most |x|_2: omega = min(d / 4s^2, sqrt(d) / s), d the size of a block. Divided by 1 + omega it is contractive with
delta = 1 / (1 + omega), as CHOCO has it (Koloskova et al. 2019, arXiv:1902.00340, section 3.5).

QSGD: Alistarh et al. 2017 (arXiv:1610.02132), with the 2-norm; LEAD (arXiv:2007.00232) has the maximum norm, 2 bits and
blocks of 512. Probabilities have 16 bits: s x_i / N is rounded to a multiple of 2^-16, evenly. A block whose norm is
too small to divide by, about 2^-120 in float32, is sent as zeros.
"""

from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from typing import Any, Literal, NamedTuple

import numpy as np
from torch import Tensor

from decentral.compiled import compiled
from decentral.compression.compressor import Array, Compressor, MalformedMessageError, Sink, Source
from decentral.compression.key import Key, drawn_16, halves
from decentral.compression.on_gpu import Passes
from decentral.compression.passes import (
    LANES,
    add_squares,
    drained,
    infinity,
    largest_key,
    load,
    settle,
    unfit_in,
)
from decentral.compression.sign import required_scales
from decentral.fused import CHUNK


class Parts(NamedTuple):
    codes: Array  # (ceil(d bits / 8),) bytes
    scales: Array  # N of each block


@dataclass(frozen=True)
class Quantized(Compressor):
    """Levels first, as signed integers of `bits` bits, lowest bits first; then N of each block.

    Args:
        bits: of a number, 2, 4 or 8.
        norm: l2, or inf for the maximum.
        block: numbers that have a norm of their own, a multiple of 4; 0 for the whole vector.
        unbiased: whether C is unbiased, or contractive by division.
        stochastic: whether it rounds at random; to the nearest it is not unbiased.
    """

    bits: Literal[2, 4, 8] = 4
    norm: Literal["l2", "inf"] = "l2"
    block: int = 0
    unbiased: bool = True
    stochastic: bool = True

    @property
    def levels(self) -> int:
        """s"""
        return (1 << (self.bits - 1)) - 1

    @property
    def _span(self) -> int:
        return min(self.block or self.space.size, self.space.size)

    @property
    def _spread(self) -> float:
        """omega of rounding at random. To the nearest, |error|^2 is at most as much."""
        return min(self._span / (4 * self.levels**2), sqrt(self._span) / self.levels)

    @property
    def _blocks(self) -> int:
        return -(-self.space.size // self._span)

    @property
    def _code_bytes(self) -> int:
        return -(-self.space.size * self.bits // 8)

    @property
    def bytes(self) -> int:
        return self._code_bytes + self._blocks * self.space.number_bytes

    @property
    def variance(self) -> float | None:
        return self._spread if self.unbiased and self.stochastic else None

    @property
    def contraction(self) -> float | None:
        if not self.unbiased and self.stochastic:
            return 1 / (1 + self._spread)
        return 1 - self._spread if self._spread < 1 else None

    @cached_property
    def _unit(self) -> Any:
        """What N is multiplied by to be the value of one level."""
        divisor = 1.0 if self.unbiased else 1 + self._spread
        return self.space.number(1 / (self.levels * divisor))

    @property
    def has_kernels(self) -> bool:
        return self.bits == 8 and self.norm == "inf"

    def kernels(self) -> Passes:
        if not self.has_kernels:
            return super().kernels()
        from decentral.compression.kernels.quantized import QuantizedKernels

        return QuantizedKernels(self.space.size, self._span, float(self._unit), self.stochastic)

    def _encode(self, source: Source, out: Array, key: Key, memory: Tensor | None) -> int:  # noqa: ARG002
        scales, limit = np.zeros(self._blocks, self.space.number), infinity(self.space.number)
        if self.norm == "l2":
            unfit = _norms(source.x, source.reference, self._span, scales, limit)
            unfit = unfit or np.count_nonzero(~np.isfinite(scales))
            if unfit:
                return int(unfit)
        stream = halves(key.own)
        shape = (self.levels, self.bits, self._span, self.norm == "inf", self.stochastic)
        unfit = _encode(*source, scales, out[: self._code_bytes], limit, self._unit, *shape, *stream)
        out[self._code_bytes :] = scales.view(np.uint8)
        return int(unfit)

    def _checked(self, message: Array, key: Key) -> Parts:  # noqa: ARG002
        codes = message[: self._code_bytes]
        scales = np.frombuffer(message[self._code_bytes :].tobytes(), self.space.number)
        used = self.space.size * self.bits % 8
        if used and codes[-1] >> used:
            raise MalformedMessageError("found bits behind the last level; required: zeros")
        if _has_lowest(codes, self.bits):
            raise MalformedMessageError(f"found the level {-self.levels - 1}; required: from {-self.levels} on")
        return Parts(codes, required_scales(scales))

    def _decode(self, parts: Parts, sink: Sink, key: Key) -> None:  # noqa: ARG002
        _decode(*parts, self._unit, self.bits, self._span, *sink)


@compiled
def _norms(x: Any, reference: Any, span: Any, scales: Any, limit: Any) -> Any:
    u, lanes = np.empty(CHUNK, x.dtype), np.zeros(LANES)
    unfit = 0
    for block in range(scales.size):
        end = min((block + 1) * span, x.size)
        for start in range(block * span, end, CHUNK):
            size = min(CHUNK, end - start)
            load(u[:size], x, reference, start)
            unfit += unfit_in(u[:size], limit)
            add_squares(lanes, u[:size])
        scales[block] = np.sqrt(drained(lanes))
    return unfit


@compiled
def _encode(
    x: Any,
    reference: Any,
    target: Any,
    step: Any,
    scales: Any,
    codes: Any,
    limit: Any,
    unit: Any,
    levels: Any,
    bits: Any,
    span: Any,
    by_maximum: Any,
    stochastic: Any,
    low: Any,
    high: Any,
) -> Any:
    u, ints, found = np.empty(CHUNK, x.dtype), np.empty(CHUNK, np.int32), np.empty(1, limit.dtype)
    unfit = 0
    for block in range(scales.size):
        begin, end = block * span, min((block + 1) * span, x.size)
        if by_maximum:
            found[0] = 0
            for start in range(begin, end, CHUNK):
                size = min(CHUNK, end - start)
                load(u[:size], x, reference, start)
                key = largest_key(u[:size], limit)
                if key >= limit[0]:
                    unfit += unfit_in(u[:size], limit)
                found[0] = max(found[0], key)
            scales[block] = found.view(x.dtype)[0]
        inverse = _inverse(scales, block, levels)
        worth = unit * scales[block]
        for start in range(begin, end, CHUNK):
            size = min(CHUNK, end - start)
            if not (by_maximum and end - begin <= CHUNK):
                load(u[:size], x, reference, start)
            if stochastic:
                _round_at_random(ints[:size], u, inverse, low, high, start)
            else:
                _round_to_nearest(ints[:size], u, inverse)
            pack(codes[start * bits // 8 :], ints[:size], bits)
            if target.size:
                for i in range(size):
                    u[i] = x.dtype.type(ints[i]) * worth
                settle(target, start, step, u[:size], True)
    return unfit


@compiled
def _inverse(scales: Any, block: Any, levels: Any) -> Any:
    """s / N, or so little less that no number is beyond s; where that overflows, N and what is sent are 0."""
    number, scale = scales.dtype.type, scales[block]
    if scale * number(2.0**120 if scales.itemsize == 4 else 2.0**1000) < 1:
        scales[block] = 0
        return number(0)
    return number(levels) / scale * number(1 - 2.0**-22)


@compiled
def _round_at_random(ints: Any, values: Any, inverse: Any, low: Any, high: Any, start: Any) -> None:
    """floor(t + r) as the integer part of t + (128 + r), in which r has the 16 bits that are left beside 128."""
    raised = np.empty(CHUNK, np.float32)
    bits = raised.view(np.uint32)
    for i in range(ints.size):
        bits[i] = np.uint32(0x43000000) | drawn_16(low, high, np.uint32(start + i))
    for i in range(ints.size):
        ints[i] = np.int32(values[i] * inverse + raised[i]) - np.int32(128)


@compiled
def _round_to_nearest(ints: Any, values: Any, inverse: Any) -> None:
    for i in range(ints.size):
        ints[i] = np.int32(np.rint(values[i] * inverse))


@compiled
def pack(codes: Any, ints: Any, bits: Any) -> None:
    """Signed integers of 2, 4 or 8 bits, lowest bits first; the last byte is filled up with zeros."""
    per, mask = 8 // bits, np.uint8((1 << bits) - 1)
    whole = ints.size // per
    if bits == 8:
        for i in range(whole):
            codes[i] = np.uint8(ints[i])
    elif bits == 4:
        for i in range(whole):
            codes[i] = (np.uint8(ints[2 * i]) & mask) | (np.uint8(ints[2 * i + 1]) << np.uint8(4))
    else:
        for i in range(whole):
            low = (np.uint8(ints[4 * i]) & mask) | ((np.uint8(ints[4 * i + 1]) & mask) << np.uint8(2))
            high = (np.uint8(ints[4 * i + 2]) & mask) | ((np.uint8(ints[4 * i + 3]) & mask) << np.uint8(2))
            codes[i] = low | (high << np.uint8(4))
    if whole * per < ints.size:
        last = np.uint8(0)
        for i in range(whole * per, ints.size):
            last |= np.uint8((np.uint8(ints[i]) & mask) << np.uint8(bits * (i - whole * per)))
        codes[whole] = last


@compiled
def unpack(ints: Any, codes: Any, bits: Any) -> None:
    """The integers that `pack` packed."""
    per = 8 // bits
    whole = ints.size // per
    if bits == 8:
        for i in range(whole):
            ints[i] = np.int8(codes[i])
    elif bits == 4:
        for i in range(whole):
            ints[2 * i] = np.int8(codes[i] << np.uint8(4)) >> np.int8(4)
            ints[2 * i + 1] = np.int8(codes[i]) >> np.int8(4)
    else:
        for i in range(whole):
            for j in range(4):
                ints[4 * i + j] = np.int8(codes[i] << np.uint8(6 - 2 * j)) >> np.int8(6)
    for i in range(whole * per, ints.size):
        shift = 8 - bits * (i - whole * per + 1)
        ints[i] = np.int8(codes[whole] << np.uint8(shift)) >> np.int8(8 - bits)


@compiled
def _has_lowest(codes: Any, bits: Any) -> Any:
    """Whether some integer is -2^(bits - 1), which is no level."""
    found = np.uint8(0)
    if bits == 8:
        for i in range(codes.size):
            found |= np.uint8(codes[i] == np.uint8(0x80))
    elif bits == 4:
        for i in range(codes.size):
            found |= np.uint8((codes[i] & np.uint8(0xF0)) == np.uint8(0x80))
            found |= np.uint8((codes[i] & np.uint8(0x0F)) == np.uint8(0x08))
    else:
        for i in range(codes.size):
            found |= np.uint8(codes[i] & ~(codes[i] << np.uint8(1)) & np.uint8(0xAA))
    return found != 0


@compiled
def _decode(codes: Any, scales: Any, unit: Any, bits: Any, span: Any, target: Any, weight: Any, adding: Any) -> None:
    ints, values = np.empty(CHUNK, np.int8), np.empty(CHUNK, scales.dtype)
    for block in range(scales.size):
        end, worth = min((block + 1) * span, target.size), unit * scales[block]
        for start in range(block * span, end, CHUNK):
            size = min(CHUNK, end - start)
            unpack(ints[:size], codes[start * bits // 8 :], bits)
            for i in range(size):
                values[i] = scales.dtype.type(ints[i]) * worth
            settle(target, start, weight, values[:size], adding)

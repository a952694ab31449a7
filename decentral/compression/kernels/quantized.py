"""Bytes in units of each block's largest magnitude, on a GPU: the bits of main memory, for a maximum has no order.

A program has some whole blocks, and reads them once. Blocks beyond WIDEST have their maxima found in a pass before.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from decentral.compression.compressor import MalformedMessageError
from decentral.compression.kernels.launch import TILE, kernel, launch, same_bits_of, tl, word
from decentral.compression.kernels.pieces import count_unfit, difference, drawn_16, keys_of, settle
from decentral.compression.kernels.sign import wrong
from decentral.compression.key import Key, halves

WIDEST = TILE
"""Numbers of a block that one program can hold."""


class Parts(NamedTuple):
    codes: Tensor  # (d,) int8
    scales: Tensor  # of each block


@dataclass(frozen=True)
class QuantizedKernels:
    """Of vectors `(size,)` in blocks of `span`, where a level is worth `unit` of a block's scale."""

    size: int
    span: int
    unit: float
    stochastic: bool

    @property
    def _blocks(self) -> int:
        return -(-self.size // self.span)

    @property
    def _tiles(self) -> int:
        return -(-self.size // TILE)

    def encode(
        self, x: Tensor, reference: Tensor | None, target: Tensor | None, step: float, out: Tensor, key: Key
    ) -> int:
        unfit = torch.zeros(1, dtype=torch.int64, device=x.device)
        scales = torch.zeros(self._blocks, device=x.device)
        compared = x if reference is None else reference
        present = {"HAS_REFERENCE": reference is not None, "SPAN": self.span}
        shape = {**present, "HAS_TARGET": target is not None, "RANDOM": self.stochastic}
        vectors = (x, compared, x if target is None else target, same_bits_of(step), scales, out, unfit, self.size)
        rest = (self.unit, *(word(half) for half in halves(key.own)))
        if self.span <= WIDEST:
            width = 1 << (self.span - 1).bit_length()
            rows = TILE // width
            programs = -(-self._blocks // rows)
            launch(_encode_blocks, programs, x.device, *vectors, *rest, **shape, ROWS=rows, WIDTH=width)
        else:
            parts = -(-self.span // TILE)
            maxima = (x, compared, scales.view(torch.int32), self.size, parts)
            launch(_maxima, self._blocks * parts, x.device, *maxima, **present, TILE=TILE)
            launch(_encode_tiles, self._tiles, x.device, *vectors, *rest, **shape, TILE=TILE)
            # What main memory sends as zeros: scales that are too small to divide by.
            scales.masked_fill_(scales * 2.0**120 < 1, 0)
        out[self.size :] = scales.view(torch.uint8)
        return int(unfit)

    def checked(self, message: Tensor, key: Key) -> Parts:  # noqa: ARG002
        codes, scales = message[: self.size].view(torch.int8), message[self.size :].clone().view(torch.float32)
        lowest = torch.zeros(1, dtype=torch.int64, device=message.device)
        launch(_count_lowest, self._tiles, message.device, codes, lowest, self.size, TILE=TILE)
        if (lowest > 0).any() | wrong(scales):
            raise MalformedMessageError("found the level -128, or a scale that is negative or not finite")
        return Parts(codes, scales)

    def decode(self, parts: Parts, target: Tensor, weight: float, adding: bool, key: Key) -> None:  # noqa: ARG002
        arguments = (*parts, target, same_bits_of(weight), self.size, self.unit)
        launch(_decode, self._tiles, target.device, *arguments, ADDING=adding, SPAN=self.span, TILE=TILE)


@kernel
def _scale_of(keys: tl.tensor) -> tl.tensor:
    """The scale that is sent for a block whose largest key is this."""
    scale = keys.to(tl.float32, bitcast=True)
    return tl.where(scale * 1.329227995784916e36 < 1, 0.0, scale)  # 2^120


@kernel
def _levels(
    u: tl.tensor, scale: tl.tensor, at: tl.tensor, low: tl.tensor, high: tl.tensor, RANDOM: tl.constexpr
) -> tl.tensor:
    divisor = tl.where(scale > 0, scale, 1.0)
    inverse = tl.where(scale > 0, tl.div_rn(tl.full(divisor.shape, 127.0, tl.float32), divisor) * (1 - 2.0**-22), 0.0)
    if RANDOM:  # floor(t + r) as the integer part of t + (128 + r)
        raised = (drawn_16(low, high, at) | 0x43000000).to(tl.float32, bitcast=True)
        return (u * inverse + raised).to(tl.int32) - 128
    # To the nearest integer, ties to even, which the low bits of t + 1.5 2^23 are.
    return (u * inverse + 12582912.0).to(tl.int32, bitcast=True) - 0x4B400000


@kernel
def _sent(
    u: tl.tensor,
    scale: tl.tensor,
    at: tl.tensor,
    inside: tl.tensor,
    target: tl.tensor,
    weight: tl.tensor,
    codes: tl.tensor,
    unit: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    HAS_TARGET: tl.constexpr,
    RANDOM: tl.constexpr,
) -> None:
    levels = _levels(u, scale, at, low, high, RANDOM)
    tl.store(codes + at, levels.to(tl.uint8), mask=inside)
    if HAS_TARGET:
        settle(target, at, inside, weight, levels.to(tl.float32) * (scale * unit), True)


@kernel
def _encode_blocks(
    x: tl.tensor,
    reference: tl.tensor,
    target: tl.tensor,
    weight: tl.tensor,
    scales: tl.tensor,
    codes: tl.tensor,
    unfit: tl.tensor,
    size: tl.tensor,
    unit: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    HAS_REFERENCE: tl.constexpr,
    HAS_TARGET: tl.constexpr,
    RANDOM: tl.constexpr,
    SPAN: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    block = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)[None, :]
    at = block[:, None] * SPAN + column
    inside = (column < SPAN) & (at < size)
    u = difference(x, reference, at, inside, HAS_REFERENCE)
    keys = keys_of(u)
    count_unfit(unfit, keys, 0x7F800000)
    scale = _scale_of(tl.max(keys, axis=1))
    tl.store(scales + block, scale, mask=block * SPAN < size)
    spread = tl.broadcast_to(scale[:, None], (ROWS, WIDTH))
    _sent(u, spread, at, inside, target, weight, codes, unit, low, high, HAS_TARGET, RANDOM)


@kernel
def _maxima(
    x: tl.tensor,
    reference: tl.tensor,
    maxima: tl.tensor,
    size: tl.tensor,
    parts: tl.tensor,
    HAS_REFERENCE: tl.constexpr,
    SPAN: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    program = tl.program_id(0).to(tl.int64)
    block, inner = program // parts, (program % parts) * TILE + tl.arange(0, TILE)
    at = block * SPAN + inner
    u = difference(x, reference, at, (inner < SPAN) & (at < size), HAS_REFERENCE)
    tl.atomic_max(maxima + block, tl.max(keys_of(u)))


@kernel
def _blocks_of(tile: tl.tensor, SPAN: tl.constexpr, TILE: tl.constexpr) -> tl.tensor:
    """Of each number of a tile; in 32 bits where a division of 64 would cost more than all the rest."""
    begin = tile * TILE
    within = (begin % SPAN).to(tl.uint32) + tl.arange(0, TILE).to(tl.uint32)
    return begin // SPAN + (within // SPAN).to(tl.int64)


@kernel
def _encode_tiles(
    x: tl.tensor,
    reference: tl.tensor,
    target: tl.tensor,
    weight: tl.tensor,
    scales: tl.tensor,
    codes: tl.tensor,
    unfit: tl.tensor,
    size: tl.tensor,
    unit: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    HAS_REFERENCE: tl.constexpr,
    HAS_TARGET: tl.constexpr,
    RANDOM: tl.constexpr,
    SPAN: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    tile = tl.program_id(0).to(tl.int64)
    at = tile * TILE + tl.arange(0, TILE)
    inside = at < size
    u = difference(x, reference, at, inside, HAS_REFERENCE)
    count_unfit(unfit, keys_of(u), 0x7F800000)
    scale = _scale_of(tl.load(scales + _blocks_of(tile, SPAN, TILE), mask=inside, other=0.0).to(tl.int32, bitcast=True))
    _sent(u, scale, at, inside, target, weight, codes, unit, low, high, HAS_TARGET, RANDOM)


@kernel
def _count_lowest(codes: tl.tensor, lowest: tl.tensor, size: tl.tensor, TILE: tl.constexpr) -> None:
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    levels = tl.load(codes + at, mask=at < size, other=0).to(tl.int32)
    count_unfit(lowest, -levels, 128)


@kernel
def _decode(
    codes: tl.tensor,
    scales: tl.tensor,
    target: tl.tensor,
    weight: tl.tensor,
    size: tl.tensor,
    unit: tl.tensor,
    ADDING: tl.constexpr,
    SPAN: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    tile = tl.program_id(0).to(tl.int64)
    at = tile * TILE + tl.arange(0, TILE)
    inside = at < size
    levels = tl.load(codes + at, mask=inside, other=0).to(tl.float32)
    worth = tl.load(scales + _blocks_of(tile, SPAN, TILE), mask=inside, other=0.0) * unit
    settle(target, at, inside, weight, levels * worth, ADDING)

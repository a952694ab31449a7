"""Sign bits and norms on a GPU.

Magnitudes are added in float64, as in main memory, but tile by tile and not in 64 lanes. Of two such sums the last bits
differ, which shows after rounding to float32 about once in 10^7 norms. The message says the norm, so whoever decodes it
has the same bits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from decentral.compression.compressor import MalformedMessageError
from decentral.compression.kernels.launch import TILE, kernel, launch, same_bits_of, tl
from decentral.compression.kernels.pieces import count_unfit, difference, keys_of, settle
from decentral.compression.key import Key


class Parts(NamedTuple):
    bits: Tensor  # (ceil(d / 8),) uint8
    scales: Tensor  # one for each tensor


class _Places(NamedTuple):
    starts: Tensor  # where each tensor begins, and the last one ends
    first: Tensor  # tensor that each tile begins in
    last: Tensor  # and that it ends in


@dataclass(frozen=True)
class SignKernels:
    """Of vectors `(size,)` of tensors that end where `ends` says."""

    size: int
    ends: Sequence[int]
    _places: dict[torch.device, _Places] = field(default_factory=dict)

    @property
    def _tiles(self) -> int:
        return -(-self.size // TILE)

    @property
    def _bit_bytes(self) -> int:
        return -(-self.size // 8)

    def encode(
        self,
        x: Tensor,
        reference: Tensor | None,
        target: Tensor | None,
        step: float,
        out: Tensor,
        key: Key,
    ) -> int:
        places, tensors = self._places_on(x.device), len(self.ends)
        unfit = torch.zeros(1, dtype=torch.int64, device=x.device)
        sums = torch.empty(self._tiles + tensors, dtype=torch.float64, device=x.device)
        scales = torch.empty(tensors, device=x.device)
        inputs = (x, x if reference is None else reference, self.size, *places, out, sums, unfit)
        launch(_encode, self._tiles, x.device, *inputs, HAS_REFERENCE=reference is not None, TILE=TILE)
        launch(_norms, tensors, x.device, sums, places.starts, scales, TILE=TILE, LANES=1024)
        out[self._bit_bytes :] = scales.view(torch.uint8)
        if target is not None and not unfit.item():
            self.decode(Parts(out[: self._bit_bytes], scales), target, step, True, key)
        return int(unfit)

    def checked(self, message: Tensor, key: Key) -> Parts:  # noqa: ARG002
        bits, scales = message[: self._bit_bytes], message[self._bit_bytes :].clone().view(torch.float32)
        behind = bits[-1:] >> (self.size % 8) if self.size % 8 else torch.zeros_like(bits[-1:])
        if behind.any() | wrong(scales):
            raise MalformedMessageError("found bits behind the last sign, or a scale that is negative or not finite")
        return Parts(bits, scales)

    def decode(self, parts: Parts, target: Tensor, weight: float, adding: bool, key: Key) -> None:  # noqa: ARG002
        arguments = (*parts, *self._places_on(target.device), target, same_bits_of(weight), self.size)
        launch(_decode, self._tiles, target.device, *arguments, ADDING=adding, TILE=TILE)

    def _places_on(self, device: torch.device) -> _Places:
        if device not in self._places:
            begins = np.arange(0, self.size, TILE)
            first = np.searchsorted(self.ends, begins, side="right")
            last = np.searchsorted(self.ends, np.minimum(begins + TILE, self.size) - 1, side="right")
            arrays = np.concatenate([[0], self.ends]), first, last
            self._places[device] = _Places(*(torch.from_numpy(a.astype(np.int64)).to(device) for a in arrays))
        return self._places[device]


def wrong(scales: Tensor) -> Tensor:
    """Whether one of them is negative, a negative zero too, or not finite: their bits are those of no float below."""
    bits = scales.view(torch.int32)
    return ((bits < 0) | (bits >= 0x7F800000)).any()


@kernel
def _encode(
    x: tl.tensor,
    reference: tl.tensor,
    size: tl.tensor,
    starts: tl.tensor,
    first: tl.tensor,
    last: tl.tensor,
    out: tl.tensor,
    sums: tl.tensor,
    unfit: tl.tensor,
    HAS_REFERENCE: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    tile = tl.program_id(0).to(tl.int64)
    byte = tile * (TILE // 8) + tl.arange(0, TILE // 8)
    bit = tl.arange(0, 8)[None, :]
    at = byte[:, None] * 8 + bit
    inside = at < size
    u = difference(x, reference, at, inside, HAS_REFERENCE)
    count_unfit(unfit, keys_of(u), 0x7F800000)
    signs = (u.to(tl.uint32, bitcast=True) >> 31) << bit.to(tl.uint32)
    tl.store(out + byte, tl.sum(signs, axis=1).to(tl.uint8), mask=byte * 8 < size)
    magnitudes = tl.abs(u).to(tl.float64)
    for tensor in range(tl.load(first + tile), tl.load(last + tile) + 1):
        own = (at >= tl.load(starts + tensor)) & (at < tl.load(starts + tensor + 1))
        # No other tile and tensor have this sum of their numbers: one of the two is larger for each further piece.
        tl.store(sums + tile + tensor, tl.sum(tl.where(own, magnitudes, 0.0)))


@kernel
def _norms(sums: tl.tensor, starts: tl.tensor, scales: tl.tensor, TILE: tl.constexpr, LANES: tl.constexpr) -> None:
    tensor = tl.program_id(0)
    begin, end = tl.load(starts + tensor), tl.load(starts + tensor + 1)
    first, behind = begin // TILE + tensor, (end - 1) // TILE + tensor + 1
    total = tl.zeros((LANES,), tl.float64)
    for start in range(first, behind, LANES):
        at = start + tl.arange(0, LANES)
        total += tl.load(sums + at, mask=at < behind, other=0.0)
    tl.store(scales + tensor, (tl.sum(total) / (end - begin).to(tl.float64)).to(tl.float32))


@kernel
def _decode(
    bits: tl.tensor,
    scales: tl.tensor,
    starts: tl.tensor,
    first: tl.tensor,
    last: tl.tensor,
    target: tl.tensor,
    weight: tl.tensor,
    size: tl.tensor,
    ADDING: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    tile = tl.program_id(0).to(tl.int64)
    at = tile * TILE + tl.arange(0, TILE)
    inside = at < size
    negative = (tl.load(bits + at // 8, mask=inside, other=0).to(tl.uint32) >> (at % 8).to(tl.uint32)) & 1
    begun = tl.load(first + tile)
    scale = tl.zeros((TILE,), tl.float32) + tl.load(scales + begun)
    for tensor in range(begun + 1, tl.load(last + tile) + 1):
        scale = tl.where(at >= tl.load(starts + tensor), tl.load(scales + tensor), scale)
    values = (scale.to(tl.uint32, bitcast=True) | (negative << 31)).to(tl.float32, bitcast=True)
    settle(target, at, inside, weight, values, ADDING)

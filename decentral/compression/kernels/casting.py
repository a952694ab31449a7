"""Numbers rounded to 16 bits, or not rounded at all, on a GPU."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from decentral.compression.compressor import MalformedMessageError
from decentral.compression.kernels.launch import TILE, aligned, kernel, launch, same_bits_of, tl
from decentral.compression.kernels.pieces import count_unfit, difference, keys_of, settle
from decentral.compression.key import Key

_FORMATS = {"bf16": (torch.int16, 0x7F80), "fp16": (torch.int16, 0x7C00), "none": (torch.int32, 0x7F800000)}
"""The integers that patterns are read as, and infinity's."""


@dataclass(frozen=True)
class CastKernels:
    """Of vectors `(size,)`, whose numbers round to infinity from the key `limit` on."""

    size: int
    format: Literal["bf16", "fp16", "none"]
    limit: int = 0x7F800000

    @property
    def _tiles(self) -> int:
        return -(-self.size // TILE)

    def encode(
        self,
        x: Tensor,
        reference: Tensor | None,
        target: Tensor | None,
        step: float,
        out: Tensor,
        key: Key,  # noqa: ARG002
    ) -> int:
        unfit, content = torch.zeros(1, dtype=torch.int64, device=x.device), aligned(out)
        vectors = (x, x if reference is None else reference, x if target is None else target, same_bits_of(step))
        present = {"HAS_REFERENCE": reference is not None, "HAS_TARGET": target is not None}
        patterns = content.view(_FORMATS[self.format][0])
        constants = {"LIMIT": self.limit, "FORMAT": self.format, "TILE": TILE}
        launch(_encode, self._tiles, x.device, *vectors, patterns, unfit, self.size, **present, **constants)
        if content is not out:
            out.copy_(content)
        return int(unfit)

    def checked(self, message: Tensor, key: Key) -> Tensor:  # noqa: ARG002
        integers, infinity = _FORMATS[self.format]
        patterns = aligned(message).view(integers)
        beyond = torch.zeros(1, dtype=torch.int64, device=message.device)
        highest = torch.iinfo(integers).max
        launch(_beyond, self._tiles, message.device, patterns, beyond, self.size, highest, INFINITY=infinity, TILE=TILE)
        if beyond.item():
            raise MalformedMessageError("found numbers that are not finite; required: finite ones")
        return patterns

    def decode(self, parts: Tensor, target: Tensor, weight: float, adding: bool, key: Key) -> None:  # noqa: ARG002
        arguments = (parts, target, same_bits_of(weight), self.size)
        launch(_decode, self._tiles, target.device, *arguments, ADDING=adding, FORMAT=self.format, TILE=TILE)


@kernel
def _patterns_of(u: tl.tensor, FORMAT: tl.constexpr) -> tl.tensor:
    if FORMAT == "bf16":  # by integers, since not every GPU rounds so itself
        bits = u.to(tl.uint32, bitcast=True)
        patterns = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).to(tl.int16)
    elif FORMAT == "fp16":
        patterns = u.to(tl.float16).to(tl.int16, bitcast=True)
    else:
        patterns = u.to(tl.int32, bitcast=True)
    return patterns


@kernel
def _values_of(patterns: tl.tensor, FORMAT: tl.constexpr) -> tl.tensor:
    if FORMAT == "bf16":
        values = (patterns.to(tl.int32) << 16).to(tl.float32, bitcast=True)
    elif FORMAT == "fp16":
        values = patterns.to(tl.float16, bitcast=True).to(tl.float32)
    else:
        values = patterns.to(tl.float32, bitcast=True)
    return values


@kernel
def _encode(
    x: tl.tensor,
    reference: tl.tensor,
    target: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    unfit: tl.tensor,
    size: tl.tensor,
    HAS_REFERENCE: tl.constexpr,
    HAS_TARGET: tl.constexpr,
    LIMIT: tl.constexpr,
    FORMAT: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = at < size
    u = difference(x, reference, at, inside, HAS_REFERENCE)
    count_unfit(unfit, keys_of(u), LIMIT)
    patterns = _patterns_of(u, FORMAT)
    tl.store(out + at, patterns, mask=inside)
    if HAS_TARGET:
        settle(target, at, inside, weight, _values_of(patterns, FORMAT), True)


@kernel
def _beyond(
    patterns: tl.tensor,
    beyond: tl.tensor,
    size: tl.tensor,
    highest: tl.tensor,
    INFINITY: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    keys = tl.load(patterns + at, mask=at < size, other=0).to(tl.int32) & highest
    count_unfit(beyond, keys, INFINITY)


@kernel
def _decode(
    patterns: tl.tensor,
    target: tl.tensor,
    weight: tl.tensor,
    size: tl.tensor,
    ADDING: tl.constexpr,
    FORMAT: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = at < size
    values = _values_of(tl.load(patterns + at, mask=inside, other=0), FORMAT)
    settle(target, at, inside, weight, values, ADDING)

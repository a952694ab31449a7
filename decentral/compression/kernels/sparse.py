"""The k numbers of largest magnitude on a GPU: the same k as in main memory, equal ones by lower index too.

A sample gives a threshold, as in `decentral.compression.selection`. One pass counts per tile who reaches it, a second
one gathers them in order, and of those, a few more than k, torch finds the k-th largest. Where the sample misled, torch
finds it among all numbers. Indices are packed by single bits set, and unpacked by sums over the map, 1.4 % as long as
the vector for 1 % of it.
"""

from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any, NamedTuple

import torch
from torch import Tensor

from decentral.compression.compressor import MalformedMessageError
from decentral.compression.kernels.launch import TILE, kernel, launch, same_bits_of, tl
from decentral.compression.kernels.pieces import count_unfit, difference, keys_of, settle
from decentral.compression.key import Key
from decentral.compression.on_gpu import Passes

SAMPLE = 8192


class Parts(NamedTuple):
    indices: Tensor  # (k,) int64
    values: Any  # the parts of the values' message


class _Gathered(NamedTuple):
    indices: Tensor  # (room,) int64
    keys: Tensor  # (room,) int32, -1 where there was nothing to gather
    values: Tensor  # (room,)
    reached: int  # how many the threshold
    unfit: int


@dataclass(frozen=True)
class SparseKernels:
    """Of vectors `(size,)`.

    Args:
        k: numbers that are sent.
        mask: bits of a magnitude that count.
        values: of the k values.
        value_bytes: of their message.
        width: low bytes of each index.
    """

    size: int
    k: int
    mask: int
    values: Passes
    value_bytes: int
    width: int

    def encode(
        self, x: Tensor, reference: Tensor | None, target: Tensor | None, step: float, out: Tensor, key: Key
    ) -> int:
        chosen = self._largest(x, reference)
        if chosen.unfit:
            return chosen.unfit
        of_values = torch.empty(self.value_bytes, dtype=torch.uint8, device=x.device)
        unfit = self.values.encode(chosen.values, None, None, 1.0, of_values, key)
        if unfit:
            return unfit
        out[: self.value_bytes] = of_values
        self._write(chosen.indices, out[self.value_bytes :])
        if target is not None:
            self.decode(Parts(chosen.indices, self.values.checked(of_values, key)), target, step, True, key)
        return 0

    def checked(self, message: Tensor, key: Key) -> Parts:
        values = self.values.checked(message[: self.value_bytes].clone(), key)
        return Parts(self._read(message[self.value_bytes :]), values)

    def decode(self, parts: Parts, target: Tensor, weight: float, adding: bool, key: Key) -> None:
        values = torch.empty(self.k, device=target.device)
        self.values.decode(parts.values, values, 1.0, False, key)
        if not adding:
            target.zero_()
        arguments = (parts.indices, values, target, same_bits_of(weight), self.k)
        launch(_scatter, -(-self.k // TILE), target.device, *arguments, ADDING=adding, TILE=TILE)

    def _largest(self, x: Tensor, reference: Tensor | None) -> _Gathered:
        sample = min(self.size, SAMPLE)
        expected = self.k / self.size * sample
        rank = ceil(expected + 3.3 * sqrt(expected)) + 4
        threshold, room = torch.zeros((), dtype=torch.int32, device=x.device), self.size
        if rank < sample < self.size:
            threshold = self._keys(x, reference, self._places(sample, x.device)).topk(rank).values[-1]
            room = min(self.size, int((rank + 6 * sqrt(rank) + 16) / sample * self.size) + 64)
        gathered = self._gathered(x, reference, threshold, room)
        if not gathered.unfit and not self.k <= gathered.reached <= room:
            threshold = self._keys(x, reference, None).topk(self.k).values[-1]
            gathered = self._gathered(x, reference, threshold, self.size)
        return gathered if gathered.unfit else self._kept(gathered)

    def _places(self, sample: int, device: torch.device) -> Tensor:
        """One of each stretch, at places that no period of the layers falls in with."""
        generator = torch.Generator().manual_seed(0)
        within = torch.rand(sample, generator=generator, dtype=torch.float64)
        places = ((torch.arange(sample) + within) * (self.size / sample)).long()
        return places.clamp_(max=self.size - 1).to(device)

    def _keys(self, x: Tensor, reference: Tensor | None, places: Tensor | None) -> Tensor:
        u = x if places is None else x[places]
        if reference is not None:
            u = u - (reference if places is None else reference[places])
        return u.view(torch.int32) & self.mask

    def _gathered(self, x: Tensor, reference: Tensor | None, threshold: Tensor, room: int) -> _Gathered:
        tiles, compared = -(-self.size // TILE), x if reference is None else reference
        counts = torch.empty(tiles, dtype=torch.int64, device=x.device)
        unfit = torch.zeros(1, dtype=torch.int64, device=x.device)
        given = {"HAS_REFERENCE": reference is not None, "MASK": self.mask, "TILE": TILE}
        launch(_count, tiles, x.device, x, compared, threshold, counts, unfit, self.size, **given)
        behind = counts.cumsum(0)
        indices = torch.zeros(room, dtype=torch.int64, device=x.device)
        keys = torch.full((room,), -1, dtype=torch.int32, device=x.device)
        values = torch.zeros(room, device=x.device)
        taken = (x, compared, threshold, behind - counts, indices, keys, values, self.size, room)
        launch(_gather, tiles, x.device, *taken, **given)
        count, wrong = torch.cat([behind[-1:], unfit]).tolist()  # the one time that the GPU is waited for
        return _Gathered(indices, keys, values, count, wrong)

    def _kept(self, gathered: _Gathered) -> _Gathered:
        """The k of largest keys, of equal ones those that come first."""
        least = gathered.keys.topk(self.k).values[-1]
        above, equal = gathered.keys > least, gathered.keys == least
        kept = above | (equal & (equal.cumsum(0) <= self.k - above.sum()))
        # Whoever is not kept goes to a place behind all that are.
        to = torch.where(kept, kept.cumsum(0) - 1, self.k)
        indices, values = (part.new_empty(self.k + 1) for part in (gathered.indices, gathered.values))
        indices[to], values[to] = gathered.indices, gathered.values
        return gathered._replace(indices=indices[: self.k], values=values[: self.k], unfit=0)

    def _write(self, indices: Tensor, out: Tensor) -> None:
        split = self.width * self.k
        lows = torch.empty(split, dtype=torch.uint8, device=out.device)
        words = torch.zeros(-(-(len(out) - split) // 4), dtype=torch.int32, device=out.device)
        launch(_pack, -(-self.k // TILE), out.device, indices, lows, words, self.k, WIDTH=self.width, TILE=TILE)
        out[:split] = lows
        out[split:] = words.view(torch.uint8)[: len(out) - split]

    def _read(self, message: Tensor) -> Tensor:
        split = self.width * self.k
        lows = message[:split].view(self.k, self.width).long()
        low = lows[:, 0] if self.width == 1 else lows[:, 0] + (lows[:, 1] << 8)
        bit = torch.arange(8, dtype=torch.uint8, device=message.device)
        marked = ((message[split:, None] >> bit) & 1).view(-1)
        rank = marked.cumsum(0)
        places = torch.zeros(self.k + 1, dtype=torch.int64, device=message.device)
        to = torch.where(marked.bool() & (rank <= self.k), rank - 1, self.k)
        places[to] = torch.arange(len(marked), device=message.device)
        high = places[: self.k] - torch.arange(self.k, device=message.device)
        indices = (high << (8 * self.width)) + low
        right = (rank[-1] == self.k) & (indices[-1] < self.size) & (indices[1:] > indices[:-1]).all()
        if not right:
            raise MalformedMessageError(
                f"found other indices than {self.k} ascending ones below {self.size}, each once"
            )
        return indices


@kernel
def _count(
    x: tl.tensor,
    reference: tl.tensor,
    threshold: tl.tensor,
    counts: tl.tensor,
    unfit: tl.tensor,
    size: tl.tensor,
    HAS_REFERENCE: tl.constexpr,
    MASK: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    tile = tl.program_id(0).to(tl.int64)
    at = tile * TILE + tl.arange(0, TILE)
    keys = keys_of(difference(x, reference, at, at < size, HAS_REFERENCE))
    count_unfit(unfit, keys, 0x7F800000)
    reached = ((keys & MASK) >= tl.load(threshold)) & (at < size)
    tl.store(counts + tile, tl.sum(reached.to(tl.int32)).to(tl.int64))


@kernel
def _gather(
    x: tl.tensor,
    reference: tl.tensor,
    threshold: tl.tensor,
    begins: tl.tensor,
    indices: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    size: tl.tensor,
    room: tl.tensor,
    HAS_REFERENCE: tl.constexpr,
    MASK: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    tile = tl.program_id(0).to(tl.int64)
    at = tile * TILE + tl.arange(0, TILE)
    u = difference(x, reference, at, at < size, HAS_REFERENCE)
    key = keys_of(u) & MASK
    reached = (key >= tl.load(threshold)) & (at < size)
    place = tl.load(begins + tile) + tl.cumsum(reached.to(tl.int32), axis=0) - 1
    fits = reached & (place < room)
    tl.store(indices + place, at, mask=fits)
    tl.store(keys + place, key, mask=fits)
    tl.store(values + place, u, mask=fits)


@kernel
def _pack(
    indices: tl.tensor, lows: tl.tensor, words: tl.tensor, k: tl.tensor, WIDTH: tl.constexpr, TILE: tl.constexpr
) -> None:
    i = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = i < k
    index = tl.load(indices + i, mask=inside, other=0)
    for byte in tl.static_range(WIDTH):
        tl.store(lows + i * WIDTH + byte, (index >> (8 * byte)).to(tl.uint8), mask=inside)
    place = (index >> (8 * WIDTH)) + i
    bit = tl.full(place.shape, 1, tl.int32) << (place & 31).to(tl.int32)
    tl.atomic_or(words + (place >> 5), bit, mask=inside)


@kernel
def _scatter(
    indices: tl.tensor,
    values: tl.tensor,
    target: tl.tensor,
    weight: tl.tensor,
    k: tl.tensor,
    ADDING: tl.constexpr,
    TILE: tl.constexpr,
) -> None:
    i = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    at = tl.load(indices + i, mask=i < k, other=0)
    settle(target, at, i < k, weight, tl.load(values + i, mask=i < k), ADDING)

"""Top-k: the k numbers of largest magnitude, of the vector or of each block of it. delta = k / d.

`top-k` is exact, and of equal magnitudes takes those of lower index. `threshold` compares magnitudes by their first 7
bits of significand, so one that it leaves out may be larger than one that it sends by 2^-7 of itself at most.
`block-top-k` takes the `keep` largest of each block: no number is compared with one far away.

Stich, Cordonnier and Jaggi 2018 (arXiv:1809.07599); contraction of all three by the mean of what is kept.
"""

from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any

import numpy as np

from decentral.compiled import compiled
from decentral.compression.compressor import Array, MalformedMessageError, Source, Space
from decentral.compression.indices import AscendingIndices
from decentral.compression.key import Key
from decentral.compression.on_gpu import Passes
from decentral.compression.passes import infinity, load, unfit_in
from decentral.compression.selection import Chosen, largest
from decentral.compression.sparse import Choice


@dataclass(frozen=True)
class Largest(Choice):
    """The k of largest magnitude; where it is coarse, of which only the first 7 bits of the significand count."""

    space: Space
    k: int
    coarse: bool = False

    @property
    def count(self) -> int:
        return self.k

    @cached_property
    def _format(self) -> AscendingIndices:
        return AscendingIndices(self.space.size, self.k)

    @property
    def bytes(self) -> int:
        return self._format.bytes

    @property
    def contraction(self) -> float:
        # Each number sent is at least 1 / (1 + 2^-7) of each that is not.
        least = self.k / (1 + 2.0**-7) ** 2 if self.coarse else self.k
        return least / (least + self.space.size - self.k)

    @cached_property
    def _mask(self) -> Array:
        bits = 8 * self.space.number_bytes - 1
        low = 0 if not self.coarse else 45 if self.space.number is np.float64 else 16
        return np.array([(1 << bits) - (1 << low)], self.space.unsigned)

    @property
    def has_kernels(self) -> bool:
        return True

    def kernels(self, values: Passes, value_bytes: int) -> Passes:
        from decentral.compression.kernels.sparse import SparseKernels

        return SparseKernels(self.space.size, self.k, int(self._mask[0]), values, value_bytes, self._format.width)

    def choose(self, source: Source, key: Key) -> Chosen:  # noqa: ARG002
        return largest(source, self.k, self._mask)

    def write(self, indices: Array, out: Array, key: Key) -> None:  # noqa: ARG002
        self._format.write(indices, out)

    def read(self, message: Array, key: Key) -> Array:  # noqa: ARG002
        return self._format.read(message)


@dataclass(frozen=True)
class LargestOfBlocks(Choice):
    """The `keep` of largest magnitude of each block; of a shorter last block, the same share, rounded up."""

    space: Space
    block: int
    keep: int

    @property
    def _whole(self) -> int:
        return self.space.size // self.block

    @property
    def _rest(self) -> int:
        """Numbers sent of the last block, where it is shorter."""
        return ceil(self.space.size % self.block * self.keep / self.block)

    @property
    def count(self) -> int:
        return self._whole * self.keep + self._rest

    @property
    def _place(self) -> Any:
        return np.uint8 if self.block <= 256 else np.uint16

    @property
    def _place_bytes(self) -> int:
        return 1 if self.block <= 256 else 2

    @property
    def bytes(self) -> int:
        return self.count * self._place_bytes

    @property
    def contraction(self) -> float:
        return self.keep / self.block

    def choose(self, source: Source, key: Key) -> Chosen:  # noqa: ARG002
        chosen = Chosen(np.empty(self.count, np.uint32), np.empty(self.count, self.space.number), 0)
        unfit = _choose(source.x, source.reference, self.block, self.keep, *chosen[:2], infinity(self.space.number))
        return chosen._replace(unfit=int(unfit))

    def _starts(self) -> Array:
        """Of the block of each number sent."""
        return (np.arange(self.count) // self.keep * self.block).astype(np.uint32)

    def write(self, indices: Array, out: Array, key: Key) -> None:  # noqa: ARG002
        out[:] = (indices - self._starts()).astype(self._place).view(np.uint8)

    def read(self, message: Array, key: Key) -> Array:  # noqa: ARG002
        places = np.frombuffer(message.tobytes(), self._place)
        indices = self._starts() + places
        ascending = (np.diff(indices.astype(np.int64)) > 0).all()
        if (places >= self.block).any() or indices[-1] >= self.space.size or not ascending:
            raise MalformedMessageError(
                f"found other indices than {self.keep} ascending ones in each block of {self.block}, each once"
            )
        return indices


@compiled
def _choose(x: Any, reference: Any, block: Any, keep: Any, indices: Any, values: Any, limit: Any) -> Any:
    u, keys = np.empty(block, x.dtype), np.empty(block, limit.dtype)
    one = limit.dtype.type(1)
    bits, magnitude = u.view(limit.dtype), limit.dtype.type(~limit.dtype.type(0) >> one)
    unfit, sent = 0, 0
    for start in range(0, x.size, block):
        size = min(block, x.size - start)
        load(u[:size], x, reference, start)
        unfit += unfit_in(u[:size], limit)
        for i in range(size):  # 0 is for what was taken
            keys[i] = (bits[i] & magnitude) + one
        count = min(keep, indices.size - sent)
        for n in range(count):
            top, best = one, 0
            for i in range(size):
                top = max(top, keys[i])
            while keys[best] != top:
                best += 1
            keys[best] = 0
            place = sent + n
            while place > sent and indices[place - 1] > start + best:
                indices[place], values[place] = indices[place - 1], values[place - 1]
                place -= 1
            indices[place], values[place] = start + best, u[best]
        sent += count
    return unfit

"""Random-k: k numbers at random. delta = k / d; times d / k it is unbiased, with omega = d / k - 1.

Where the seed is shared, all nodes choose the same numbers in a round: no index is sent, and C is linear, so that means
of messages are messages of means. Else each chooses for itself, and sends 64 bits from which its indices follow.

The vector, begun at a random place, is cut into k stretches of as equal size as there are, and of each one number is
drawn: every number with probability k / d exactly, which is all that delta and omega depend on, in ascending order and
with no two the same, where a random subset would have to be sorted.

Stich, Cordonnier and Jaggi 2018 (arXiv:1809.07599).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from decentral.compiled import compiled
from decentral.compression.compressor import Array, MalformedMessageError, Source, Space
from decentral.compression.key import Key, drawn, halves
from decentral.compression.passes import infinity
from decentral.compression.selection import Chosen
from decentral.compression.sparse import Choice


@dataclass(frozen=True)
class Random(Choice):
    """The message says the 64 bits of the stream; of a shared one as well, so that another round's is told apart."""

    space: Space
    k: int
    is_shared: bool = True

    @property
    def count(self) -> int:
        return self.k

    @property
    def bytes(self) -> int:
        return 8

    @property
    def contraction(self) -> float:
        return self.k / self.space.size

    @property
    def probability(self) -> float:
        return self.k / self.space.size

    @property
    def shared(self) -> bool:
        return self.is_shared

    def _stream(self, key: Key) -> int:
        return key.shared if self.is_shared else key.own

    def choose(self, source: Source, key: Key) -> Chosen:
        indices = self._drawn(self._stream(key))
        values = np.empty(self.k, self.space.number)
        limit = infinity(self.space.number)
        return Chosen(indices, values, int(_pick(source.x, source.reference, indices, values, limit)))

    def write(self, indices: Array, out: Array, key: Key) -> None:  # noqa: ARG002
        out[:] = np.array([self._stream(key)], np.uint64).view(np.uint8)

    def read(self, message: Array, key: Key) -> Array:
        stream = int.from_bytes(message.tobytes(), "little")
        if self.is_shared:
            required_stream(stream, key)
        return self._drawn(stream)

    def _drawn(self, stream: int) -> Array:
        return random_places(self.space.size, self.k, stream)


def random_places(size: int, k: int, stream: int) -> Array:
    """k numbers below `size`, `(k,)` uint32, no two the same, each with probability k / size, by a stream's 64 bits."""
    indices = np.empty(k, np.uint32)
    _draw(indices, size, *halves(stream))
    return indices


def required_stream(found: int, key: Key) -> None:
    """Refuse a message of another round or seed.

    Raises:
        MalformedMessageError: its stream is not the key's shared one.
    """
    if found != key.shared:
        raise MalformedMessageError(
            f"found a message of another round or seed ({found:016x}); required: {key.shared:016x}"
        )


@compiled
def _draw(indices: Any, size: Any, low: Any, high: Any) -> None:
    count = indices.size
    offset = np.int64(np.uint64(drawn(low, high, np.uint32(0xFFFFFFFF))) * np.uint64(size) >> np.uint64(32))
    for i in range(count):
        begin = i * size // count
        stretch = (i + 1) * size // count - begin
        place = begin + np.int64(np.uint64(drawn(low, high, np.uint32(i))) * np.uint64(stretch) >> np.uint64(32))
        index = place + offset
        indices[i] = index - size if index >= size else index


@compiled
def _pick(x: Any, reference: Any, indices: Any, values: Any, limit: Any) -> Any:
    """Take the numbers at the indices; counts those of all x that are not finite."""
    bits, magnitude = x.view(limit.dtype), ~(limit.dtype.type(1) << limit.dtype.type(8 * limit.itemsize - 1))
    unfit = 0
    for i in range(x.size):
        unfit += (bits[i] & magnitude) >= limit[0]
    beyond = 0
    for i in range(indices.size):
        place = indices[i]
        values[i] = x[place] - reference[place] if reference.size else x[place]
        beyond += not np.isfinite(values[i])
    return unfit or beyond

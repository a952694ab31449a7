"""Ascending indices in about one byte each: the low bits as they are, and in unary how many share the high ones.

Index i of k has its `width` low bytes in a table of k entries. Above them, with h_i the rest of it, bit h_i + i is set
in a map of k + 1 + floor(d / 256^width) bits (Elias 1974, Fano 1971). For 1 % of the numbers that is 9.4 bits for each
index where a plain one has 32; the size is known before the run, and an index out of order or too large shows.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from decentral.compiled import compiled
from decentral.compression.compressor import Array, MalformedMessageError
from decentral.compression.passes import trailing_zeros


@dataclass(frozen=True)
class AscendingIndices:
    """The format of k ascending indices below d, in as few bytes as the better width takes."""

    size: int  # d
    count: int  # k

    @cached_property
    def width(self) -> int:
        """Low bytes of each index."""
        return min((1, 2), key=self._bytes_of)

    @property
    def bytes(self) -> int:
        return self._bytes_of(self.width)

    def _bytes_of(self, width: int) -> int:
        return width * self.count + (self._bits_of(width) + 7) // 8

    def _bits_of(self, width: int) -> int:
        return self.count + (self.size >> (8 * width)) + 1

    def write(self, indices: Array, out: Array) -> None:
        """Write `indices: (k,)` uint32, ascending, into `out: (bytes,)`."""
        words = np.zeros(-(-self._bits_of(self.width) // 64), np.uint64)
        lows = np.empty(self.count, np.uint16)
        _write(indices, lows, words, np.uint32(8 * self.width))
        split = self.width * self.count
        out[:split] = lows.astype(np.uint8) if self.width == 1 else lows.view(np.uint8)
        out[split:] = words.view(np.uint8)[: len(out) - split]

    def read(self, message: Array) -> Array:
        """The indices `(k,)` uint32 of a message `(bytes,)`: ascending, no two the same, all below d.

        Raises:
            MalformedMessageError: it has no such indices.
        """
        split = self.width * self.count
        lows = np.frombuffer(message[:split].tobytes(), np.uint8 if self.width == 1 else np.uint16).astype(np.uint16)
        words = np.zeros(-(-self._bits_of(self.width) // 64), np.uint64)
        words.view(np.uint8)[: len(message) - split] = message[split:]
        indices = np.empty(self.count, np.uint32)
        if not _read(indices, lows, words, np.uint32(8 * self.width), self.size):
            raise MalformedMessageError(
                f"found other indices than {self.count} ascending ones below {self.size}, each once"
            )
        return indices


@compiled
def _write(indices: Any, lows: Any, words: Any, shift: Any) -> None:
    for i in range(indices.size):
        lows[i] = indices[i] & ((np.uint32(1) << shift) - np.uint32(1))
        place = np.int64(indices[i] >> shift) + i
        words[place >> 6] |= np.uint64(1) << np.uint64(place & 63)


@compiled
def _read(indices: Any, lows: Any, words: Any, shift: Any, size: Any) -> Any:
    found, last = 0, np.int64(-1)
    for number in range(words.size):
        word = words[number]
        while word:
            if found == indices.size:
                return False
            high = np.int64(64 * number) + trailing_zeros(word) - found
            index = (high << np.int64(shift)) + np.int64(lows[found])
            if index <= last or index >= size:
                return False
            indices[found] = index
            last, found = index, found + 1
            word &= word - np.uint64(1)
    return found == indices.size

"""What a message's randomness depends on: the seed, the round and the node, and nothing that was drawn before.

Number i of a stream is a function of the stream's 64 bits and i alone, so every process draws the same, in any order.
"""

from typing import Any, NamedTuple

import numpy as np

from decentral.compiled import compiled

_MASK = (1 << 64) - 1
_SHARED = 0xC0FFEE  # 24 bits


class Key(NamedTuple):
    """Which message it is: whoever knows it draws what its sender draws."""

    seed: int
    round: int
    node: int
    message: int = 0  # of those that the node sends in this round, each of which is random on its own

    @property
    def own(self) -> int:
        """64 bits of this node's own stream in this round."""
        return self._stream(self.node + 1)

    @property
    def shared(self) -> int:
        """64 bits of the stream that all nodes have in this round."""
        return self._stream(_SHARED << 32)

    def _stream(self, last: int) -> int:
        state = 0
        for word in (self.seed, self.round, last + (self.message << 57)):
            state = _scrambled(state ^ (word & _MASK))
        return state


def _scrambled(state: int) -> int:
    """Steele, Lea and Flood 2014's splitmix64."""
    state = (state + 0x9E3779B97F4A7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
    return state ^ (state >> 31)


def halves(stream: int) -> tuple[np.uint32, np.uint32]:
    """A stream's 64 bits as the compiled passes take them."""
    return np.uint32(stream & 0xFFFFFFFF), np.uint32(stream >> 32)


@compiled
def drawn(low: Any, high: Any, index: Any) -> Any:
    """32 random bits: number `index` of the stream (low, high). All are uint32.

    A multiply-xorshift hash (Wellons' lowbias32) with the second half of the stream between its two multiplications:
    two streams are then not the same numbers at other places.
    """
    x = _multiplied(low, high, index)
    return np.uint32(x ^ (x >> np.uint32(16)))


@compiled
def drawn_16(low: Any, high: Any, index: Any) -> Any:
    """The higher 16 of the 32 bits that are `drawn`, in fewer operations."""
    return _multiplied(low, high, index) >> np.uint32(16)


@compiled
def _multiplied(low: Any, high: Any, index: Any) -> Any:
    x = np.uint32(index + low)
    x = np.uint32((x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D))
    x = np.uint32(x + high)
    return np.uint32((x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B))

"""Some of the numbers, and zero for the rest: whichever choice is made of them, and however they are sent.

A choice says which k numbers are sent, and what of that its message has to say: indices, a seed, or nothing. The k
values are a vector of their own, sent as they are or by another compressor, which makes a chain. Contractions of a
chain multiply, and so do 1 + omega: the values' error and what is left out are orthogonal.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from decentral.compiled import compiled
from decentral.compression.compressor import Array, Compressor, Sink, Source
from decentral.compression.key import Key
from decentral.compression.on_gpu import Passes
from decentral.compression.selection import Chosen


class Choice(Protocol):
    """Which numbers are sent."""

    @property
    @abstractmethod
    def count(self) -> int:
        """k"""

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Of what a message says about the indices."""

    @property
    @abstractmethod
    def contraction(self) -> float:
        """delta of sending the chosen numbers and no others."""

    @property
    def probability(self) -> float | None:
        """With which each number is chosen, where that does not depend on the numbers."""
        return None

    @property
    def shared(self) -> bool:
        """Whether all nodes choose the same numbers in a round."""
        return False

    def kernels(self, values: Passes, value_bytes: int) -> Passes:  # noqa: ARG002
        """What chooses and sends on a GPU, with these passes for the values."""
        raise ValueError(f"{type(self).__name__} has no kernels, and was given vectors on a GPU")

    @property
    def has_kernels(self) -> bool:
        return False

    @abstractmethod
    def choose(self, source: Source, key: Key) -> Chosen: ...

    @abstractmethod
    def write(self, indices: Array, out: Array, key: Key) -> None:
        """Say in `out: (bytes,)` which they are."""

    @abstractmethod
    def read(self, message: Array, key: Key) -> Array:
        """The indices `(k,)` that `write` wrote, uint32, each below d.

        Raises:
            MalformedMessageError: it wrote something else.
        """


class Parts(NamedTuple):
    indices: Array  # (k,)
    values: Any  # the parts of the values' message


@dataclass(frozen=True)
class Sparse(Compressor):
    """The values' message first, then what the choice says.

    Args:
        choice: of the numbers.
        values: the compressor of the k values.
        unbiased: whether what is sent is divided by its probability.
    """

    choice: Choice
    values: Compressor
    unbiased: bool = False

    @property
    def bytes(self) -> int:
        return self.values.bytes + self.choice.bytes

    @property
    def contraction(self) -> float | None:
        own = self.values.contraction
        return None if self.unbiased or own is None else self.choice.contraction * own

    @property
    def variance(self) -> float | None:
        if not self.unbiased or self.choice.probability is None or self.values.variance is None:
            return None
        return (1 + self.values.variance) / self.choice.probability - 1

    @property
    def linear(self) -> bool:
        return self.choice.shared and self.values.linear

    @property
    def summed_bytes(self) -> int:
        return self.values.summed_bytes

    @property
    def has_kernels(self) -> bool:
        return self.choice.has_kernels and self.values.has_kernels

    def kernels(self) -> Passes:
        if not self.has_kernels:
            return super().kernels()
        return self.choice.kernels(self.values.kernels(), self.values.bytes)

    def _encode(self, source: Source, out: Array, key: Key, memory: Tensor | None) -> int:  # noqa: ARG002
        chosen = self.choice.choose(source, key)
        if chosen.unfit:
            return chosen.unfit
        sent = chosen.values
        if self.unbiased and self.choice.probability:
            sent = sent * self.space.number(1 / self.choice.probability)
        of_values, of_choice = out[: self.values.bytes], out[self.values.bytes :]
        unfit = self.values._encode(Source(sent, sent[:0], sent[:0], self.space.number(1)), of_values, key, None)
        if unfit:
            return unfit
        self.choice.write(chosen.indices, of_choice, key)
        if source.target.size:
            sent = self._values(self.values._checked(of_values, key), key)
            _scatter(chosen.indices, sent, source.target, source.step, True)
        return 0

    def _checked(self, message: Array, key: Key) -> Parts:
        values = self.values._checked(message[: self.values.bytes], key)
        return Parts(self.choice.read(message[self.values.bytes :], key), values)

    def _decode(self, parts: Parts, sink: Sink, key: Key) -> None:
        if not sink.adding:
            sink.target[:] = 0
        _scatter(parts.indices, self._values(parts.values, key), *sink)

    def _values(self, parts: Any, key: Key) -> Array:
        values = np.empty(self.choice.count, self.space.number)
        self.values._decode(parts, Sink(values, self.space.number(1), False), key)
        return values


@compiled
def _scatter(indices: Any, values: Any, target: Any, weight: Any, adding: Any) -> None:
    if adding:
        for i in range(indices.size):
            target[indices[i]] += weight * values[i]
    else:
        for i in range(indices.size):
            target[indices[i]] = values[i]

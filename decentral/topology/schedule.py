"""Which mixing matrix applies in which turn."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from decentral.errors import ConfigError
from decentral.topology.mixing import MixingMatrix
from decentral.topology.stochastic import KINDS, Kind

REMEMBERED = 8
"""Drawn matrices that are kept: all nodes of a simulator ask for the same turn, and overlap asks for the next."""


class TopologySchedule(ABC):
    """A sequence of mixing matrices that every node knows without communication.

    A turn is one gossip step; a static graph has one turn.
    """

    @property
    @abstractmethod
    def period(self) -> int | None:
        """Turns after which the sequence repeats; None: it never does, and each turn is drawn."""

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """What the matrices of all turns are."""

    @abstractmethod
    def matrix(self, turn: int) -> MixingMatrix:
        """The mixing matrix of a turn, 0, 1, 2, ...; turns beyond the period wrap around."""


@dataclass(frozen=True, eq=False)
class StaticSchedule(TopologySchedule):
    """The same matrix in every turn."""

    mixing: MixingMatrix

    @property
    def period(self) -> int:
        return 1

    @property
    def kind(self) -> Kind:
        return self.mixing.kind

    def matrix(self, turn: int) -> MixingMatrix:  # noqa: ARG002  every turn is alike
        return self.mixing


@dataclass(frozen=True, eq=False)
class CyclicSchedule(TopologySchedule):
    """Some matrices in turn, over and over."""

    matrices: tuple[MixingMatrix, ...]

    @property
    def period(self) -> int:
        return len(self.matrices)

    @cached_property
    def kind(self) -> Kind:
        return weakest(*(matrix.kind for matrix in self.matrices))

    def matrix(self, turn: int) -> MixingMatrix:
        return self.matrices[turn % len(self.matrices)]


@dataclass(frozen=True, eq=False)
class DrawnSchedule(TopologySchedule):
    """A matrix for each turn by a function that gives the same in every process.

    Args:
        draw: the matrix of a turn.
        of_kind: what every one of them must be.
    """

    draw: Callable[[int], MixingMatrix]
    of_kind: Kind

    @property
    def period(self) -> None:
        return None

    @property
    def kind(self) -> Kind:
        return self.of_kind

    def matrix(self, turn: int) -> MixingMatrix:
        """The mixing matrix of a turn.

        Raises:
            ConfigError: it is less than `kind`.
        """
        return self._remembered(turn)

    @cached_property
    def _remembered(self) -> Callable[[int], MixingMatrix]:
        return lru_cache(maxsize=REMEMBERED)(self._checked)

    def _checked(self, turn: int) -> MixingMatrix:
        drawn = self.draw(turn)
        if weakest(drawn.kind, self.kind) != self.kind:
            raise ConfigError(f"the mixing matrix of turn {turn} is {drawn.kind}; those before it were {self.kind}")
        return drawn


def cyclic(matrices: tuple[MixingMatrix, ...]) -> StaticSchedule | CyclicSchedule:
    """The schedule of some matrices in turn; of one alone, the static one."""
    return StaticSchedule(matrices[0]) if len(matrices) == 1 else CyclicSchedule(matrices)


def weakest(*kinds: Kind) -> Kind:
    """What all of them are."""
    return min(kinds, key=KINDS.index)

"""Which mixing matrix applies in which turn."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from decentral.topology.mixing import MixingMatrix


class TopologySchedule(ABC):
    """A periodic sequence of mixing matrices. A turn is one gossip step; a static graph has one turn."""

    @property
    @abstractmethod
    def period(self) -> int:
        """Turns after which the sequence repeats."""

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

    def matrix(self, turn: int) -> MixingMatrix:  # noqa: ARG002  every turn is alike
        return self.mixing


@dataclass(frozen=True, eq=False)
class CyclicSchedule(TopologySchedule):
    """Some matrices in turn, over and over."""

    matrices: tuple[MixingMatrix, ...]

    @property
    def period(self) -> int:
        return len(self.matrices)

    def matrix(self, turn: int) -> MixingMatrix:
        return self.matrices[turn % len(self.matrices)]

"""When something is the matter with a node: spells that begin and end, known beforehand or drawn as time goes on."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import Literal

import numpy as np


@dataclass
class Spells:
    """Spells that do not overlap.

    Args:
        ends: in turn, when one begins and when it ends, in seconds, ascending; asked for as far as they are needed.
    """

    ends: Iterable[float]
    _known: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._more: Iterator[float] = iter(self.ends)

    @classmethod
    def again_and_again(
        cls, from_s: float, until_s: float, every_s: float, lasting_s: float, random: np.random.Generator
    ) -> "Spells":
        """Of exponential length and distance, none before or after some time."""

        def ends() -> Iterator[float]:
            at_s = from_s
            for number in count():
                at_s += random.exponential(lasting_s if number % 2 else every_s)
                if at_s >= until_s:
                    if number % 2:
                        yield until_s
                    return
                yield at_s

        return cls(ends())

    def _place(self, at_s: float) -> int:
        """How many ends there are until then, itself included."""
        while not self._known or self._known[-1] <= at_s:
            self._known.append(next(self._more, inf))
            if self._known[-1] == inf:
                break
        return bisect_right(self._known, at_s)

    def during(self, at_s: float) -> bool:
        """Whether one is on; it is from its beginning on, and not at its end."""
        return self._place(at_s) % 2 == 1

    def next_end_s(self, at_s: float) -> float:
        """When the next one begins or the one that is on ends; infinite for never."""
        place = self._place(at_s)
        return self._known[place] if place < len(self._known) else inf


@dataclass(frozen=True)
class Slowed:
    """Spells in which a node computes so many times slower; at infinity it stands still."""

    spells: Spells
    slowdown: float


@dataclass(frozen=True)
class Away:
    """Spells in which a node is down, and what it comes back with."""

    spells: Spells
    rejoin: Literal["own", "neighbor"] = "own"


def computed_at_s(at_s: float, work_s: float, slowed: Sequence[Slowed]) -> float:
    """When work of so many seconds, begun at a time, is done; infinite where the node stands still for ever."""
    while True:
        slowdown = 1.0
        for each in slowed:
            if each.spells.during(at_s):
                slowdown *= each.slowdown
        until_s = min((each.spells.next_end_s(at_s) for each in slowed), default=inf)
        if slowdown == 1.0 and at_s + work_s <= until_s:
            return at_s + work_s
        if (done_s := at_s + work_s * slowdown) <= until_s:
            return done_s
        work_s -= (until_s - at_s) / slowdown
        at_s = until_s


def back_s(at_s: float, away: Sequence[Away]) -> float:
    """The first time from then on when a node is not down."""
    while down := [each.spells for each in away if each.spells.during(at_s)]:
        at_s = max(spells.next_end_s(at_s) for spells in down)
        if at_s == inf:
            break
    return at_s

"""What is to happen when: in the order of virtual time, and at one instant arrivals first, then steps, then looks."""

from collections.abc import Callable
from enum import IntEnum
from heapq import heappop, heappush
from math import inf
from typing import NamedTuple


class Phase(IntEnum):
    """The order at one instant.

    So whatever is sent without latency has arrived before anyone looks, whoever of both is simulated first; and those
    who look at the same instant see the same, since none goes on before all have looked.
    """

    ARRIVE = 0
    GO_ON = 1
    LOOK = 2


class Event(NamedTuple):
    at_s: float
    phase: Phase
    order: int  # of two of the same phase at the same time, that which was foreseen first
    node: int
    life: int  # of the node; what was foreseen before it went down does not happen
    happen: Callable[[float], None]


class Queue:
    """Of a simulation of some nodes."""

    def __init__(self, nodes: int) -> None:
        self.now_s = 0.0
        self.lives = [0] * nodes
        self._events: list[Event] = []
        self._aside: list[Event] = []
        self._foreseen = 0

    def foresee(
        self, at_s: float, phase: Phase, node: int, happen: Callable[[float], None], *, for_ever: bool = False
    ) -> None:
        """Let something happen; what would at infinity does not.

        Args:
            for_ever: even if the node goes down until then.
        """
        if at_s == inf:
            return
        self._foreseen += 1
        life = -1 if for_ever else self.lives[node]
        heappush(self._events, Event(at_s, phase, self._foreseen, node, life, happen))

    def foresee_aside(self, at_s: float, node: int, happen: Callable[[float], None]) -> None:
        """Let something happen, before all else at its instant, that alone does not keep the simulation busy."""
        if at_s < inf:
            self._foreseen += 1
            heappush(self._aside, Event(at_s, Phase.ARRIVE, self._foreseen, node, -1, happen))

    def next(self) -> Event | None:
        """Take the next event out."""
        is_busy = self._skip()
        if self._aside and (not is_busy or self._aside[0].at_s <= self._events[0].at_s):
            event = heappop(self._aside)
        elif is_busy:
            event = heappop(self._events)
        else:
            return None
        self.now_s = event.at_s
        return event

    def looks(self, first: Event) -> list[Event]:
        """With a look, take out all others at the same instant; in ascending order of nodes."""
        found = [first]
        while self._skip() and self._events[0].at_s == first.at_s and self._events[0].phase is Phase.LOOK:
            found.append(heappop(self._events))
        return sorted(found, key=lambda event: event.node)

    @property
    def next_s(self) -> float:
        """When the next event is that is not aside; infinite if there is none, and the simulation is not busy."""
        return self._events[0].at_s if self._skip() else inf

    def _skip(self) -> bool:
        """Drop what does not happen; whether something is left."""
        events, lives = self._events, self.lives
        while events:
            first = events[0]
            if first.life == -1 or first.life == lives[first.node]:
                return True
            heappop(events)
        return False

    def clear(self) -> None:
        """Nothing is to happen any more."""
        self._events.clear()
        self._aside.clear()

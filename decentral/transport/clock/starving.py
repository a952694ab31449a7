"""Who does not get on: a node that can never go on, or that makes no step while others make many."""

from collections.abc import Collection, Mapping
from typing import Any

from decentral.peer import Effect, Gradient, Poll
from decentral.transport.lockstep import DeadlockError

SHOWN = 5
"""Nodes that an error names."""


class Progress:
    """Of some nodes, of which none may starve.

    Args:
        nodes: how many.
        starving: steps of the mean of the others without any of its own.
    """

    def __init__(self, nodes: int, starving: int) -> None:
        self._starving = starving
        self._made = 0  # steps by all
        self._then = [0] * nodes  # how many that were when each made its last one
        self._falls = [0] * nodes  # how often each has gone down since then

    def step(
        self, node: int, excused: Collection[int], at_s: float, waiting: Mapping[int, tuple[Effect[Any], float]]
    ) -> None:
        """A node has made a step.

        Args:
            excused: nodes that need make none.
            waiting: what nodes wait for, and since when.

        Raises:
            DeadlockError: another is starving.
        """
        self._made += 1
        self._then[node], self._falls[node] = self._made, 0
        nodes = len(self._then)
        if self._made % nodes:
            return
        for other in excused:
            self._then[other] = self._made
        behind = min(range(nodes), key=self._then.__getitem__)
        if (others := self._made - self._then[behind]) > self._starving * max(nodes - 1, 1):
            why = who_waits([behind], waiting, ()) if behind in waiting else f"node {behind} computes a gradient"
            raise DeadlockError(
                f"node {behind} is starving: by {at_s:g} s it made no step while the others made {others}: {why}; "
                "raise clock.starving where that is meant"
            )

    def fell(self, node: int, at_s: float) -> None:
        """A node that has steps to make has gone down.

        Raises:
            DeadlockError: so often, without a step in between, that it will hardly make one.
        """
        self._falls[node] += 1
        if self._falls[node] > self._starving:
            raise DeadlockError(
                f"node {node} is starving: by {at_s:g} s it has gone down {self._falls[node]} times without a step in "
                "between; let it stay up for longer than it takes to come back and make a step"
            )


def who_waits(nodes: Collection[int], waiting: Mapping[int, tuple[Effect[Any], float]], down: Collection[int]) -> str:
    """`node 3 waits for a letter since 0.5 s`: what each waits for."""
    told = []
    for node in [*nodes][:SHOWN]:
        if node in down or node not in waiting:
            told.append(f"node {node} is down for ever")
            continue
        asked, since_s = waiting[node]
        if isinstance(asked, Gradient):
            told.append(f"node {node} stands still for ever in a gradient that it began at {since_s:g} s")
        else:
            told.append(
                f"node {node} waits for a {'push' if isinstance(asked, Poll) else 'letter'} since {since_s:g} s"
            )
    return ", ".join(told)

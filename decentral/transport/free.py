"""A free run on a real process: its node steps at its own pace, and answers others until all have made their steps.

It ends once all nodes have made their steps, and nothing that was sent is under way: what a method must not lose has
arrived then. That is found out behind the nodes' own threads, which go on answering, by counts of all nodes that are
gathered again and again until two in a row are the same, as many read as made, and nobody busy (Mattern 1987).
"""

from collections.abc import Callable
from threading import Event, Thread
from time import sleep
from typing import NamedTuple

import torch
from torch import Tensor

from decentral.transport.driver import FreeRun, Step
from decentral.transport.links import BrokenLinkError

SLOWEST = 100
"""How many times longer than this node another may take for its steps before it counts as lost."""

NAP_S = 2e-3
"""Between two gathers of counts."""


class TimeOverError(Exception):
    """The node waits, and is to wait no more: the time of the run is over, or all nodes have made their steps."""


def step_freely(node: int, run: FreeRun, now_s: Callable[[], float], perform: Callable[[Step, int], Tensor]) -> None:
    """Make a node's steps, and keep what is due after each: as it is between two steps, with the time of that.

    Args:
        now_s: seconds since the run began.
        perform: called as perform(step, its number); raises TimeOverError where it waits, and the time is over.
    """

    def look() -> None:
        while (at_s := now_s()) >= run.look_s():
            run.look(at_s)

    made = 0
    while (step := run.begin(node, now_s())) is not None:
        try:
            loss = perform(step, made)
        except TimeOverError:
            break
        run.end(node, loss, now_s())
        made += 1
        look()
    look()


class Counts(NamedTuple):
    """What a node has sent and read so far, in messages, and whether it is about to send more on account of it."""

    made: int
    read: int
    busy: int


Gather = Callable[[Tensor, float], Tensor]
"""Called as gather(own `(k,)` numbers, seconds) by all nodes; all nodes' numbers `(nodes, k)`, in order of nodes."""


class AllThrough:
    """Whether all nodes have made their steps and nothing is under way, found out behind the node's own thread.

    Args:
        node: this one, for the thread's name.
        gather: raises BrokenLinkError.
        counts: of this node.
        patience_s: how long the others may take for their steps.
        timeout_s: how long everything that follows may take.
    """

    def __init__(
        self, node: int, gather: Gather, counts: Callable[[], Counts], patience_s: float, timeout_s: float
    ) -> None:
        self._is_over = Event()
        self._error: BrokenLinkError | None = None
        self._gather, self._counts = gather, counts
        self._patience_s, self._timeout_s = patience_s, timeout_s
        Thread(target=self._wait, name=f"all-through-{node}", daemon=True).start()

    def _wait(self) -> None:
        try:
            before, now = self._totals(self._patience_s), self._totals(self._timeout_s)
            while now != before or now.made != now.read or now.busy:
                sleep(NAP_S)
                before, now = now, self._totals(self._timeout_s)
        except BrokenLinkError as error:
            self._error = error
        finally:
            self._is_over.set()

    def _totals(self, patience_s: float) -> Counts:
        own = torch.tensor(self._counts(), dtype=torch.float64)
        return Counts(*map(int, self._gather(own, patience_s).sum(0).tolist()))

    def is_over(self) -> bool:
        """Whether they have, or never will."""
        return self._is_over.is_set()

    def wait(self, seconds: float) -> bool:
        """The same, after at most so many seconds."""
        return self._is_over.wait(seconds)

    def check(self, _timeout_s: float) -> None:
        """Raise BrokenLinkError where another node has gone, or took too long."""
        if self._error is not None:
            raise self._error

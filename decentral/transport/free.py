"""A free run on a real process: its node steps at its own pace, and answers others until all have made their steps.

It ends once all nodes have made their steps, and nothing that was sent is under way: what a method must not lose has
arrived then. That is found out behind the nodes' own threads, which go on answering, by counts of all nodes that are
gathered again and again until two in a row are the same, as many read as made, and nobody busy (Mattern 1987).
"""

from collections.abc import Callable, Mapping
from math import inf
from threading import Event, Thread
from time import sleep
from typing import NamedTuple

import torch
from torch import Tensor

from decentral.peer import Arrival, Letter, Poll, Receive
from decentral.transport.driver import FreeRun, Step
from decentral.transport.letters import Letters
from decentral.transport.links import BrokenLinkError
from decentral.transport.pushes import Pushes

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

    made = run.steps_made(node)
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
        wake: called once they have, or never will, since the node may wait for what nobody sends any more.
    """

    def __init__(
        self,
        node: int,
        gather: Gather,
        counts: Callable[[], Counts],
        patience_s: float,
        timeout_s: float,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._is_over = Event()
        self._error: BrokenLinkError | None = None
        self._gather, self._counts, self._wake = gather, counts, wake
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
            self._wake()

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


class Waits:
    """A node's waits for what others send, and how they end.

    Args:
        letters: of the node.
        pushes: of the node.
        timeout_s: how long it waits at most.
    """

    def __init__(self, letters: Letters, pushes: Pushes, timeout_s: float) -> None:
        self._letters, self._pushes, self._most_s = letters, pushes, timeout_s
        self._timeout_s = timeout_s
        self._serves = True
        self.now_s: Callable[[], float] = lambda: 0.0  # since the run began
        self.is_over: Callable[[], bool] = lambda: False  # whether a node that waits is to wait no more

    def begin(self, run: FreeRun, now_s: Callable[[], float]) -> None:
        """The node waits no longer than the run lasts."""
        self.now_s, self.is_over = now_s, lambda: now_s() >= run.over_s
        self._timeout_s, self._serves = self._most_s, True

    def end(self) -> None:
        """All is through: what nobody has looked at goes, before anyone sends more."""
        self._letters.rest()
        self._pushes.drop()

    def wake(self) -> None:
        """Let a node that waits look whether it still should."""
        self._letters.wake()
        self._pushes.wake()

    def receive(self, asked: Receive) -> Letter | None:
        """A letter; raises TimeOverError as `poll` does."""
        patience_s = max(asked.until_s - self.now_s(), 0.0)
        letter = self._letters.receive(asked, self.is_over, self._timeout_s, patience_s)
        if asked.wait and letter is None and (asked.until_s == inf or self.is_over()):
            raise TimeOverError
        return letter

    def poll(self, asked: Poll) -> Mapping[int, Arrival]:
        """What has been pushed.

        Raises:
            TimeOverError: the node waits, and is to wait no more.
        """
        arrivals = self._pushes.poll(asked, self.is_over, self._timeout_s)
        if asked.wait and not arrivals:
            raise TimeOverError
        return arrivals

    def until(self, through: AllThrough) -> None:
        """From now on the node waits until that is over, however long it is."""
        self.is_over, self._timeout_s = through.is_over, inf

    def counts(self) -> Counts:
        """What the node has sent and read, read the other way round: what is read meanwhile is seen to be sent."""
        letters, pushes = self._letters, self._pushes
        read = letters.read + pushes.read
        busy = self._serves and not (letters.is_waiting or pushes.is_waiting)
        return Counts(letters.made + pushes.made, read, int(busy))

    def see_off(self, through: AllThrough) -> None:
        """The node answers nobody any more, and waits for the others; raises LostNeighborError."""
        self._serves = False
        while not through.wait(NAP_S):
            self._letters.throw_away()
            self._pushes.check("Poll")

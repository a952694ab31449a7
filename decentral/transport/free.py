"""A free run on a real process: its node steps at its own pace, and answers others until all have made their steps."""

from collections.abc import Callable
from threading import Event, Thread

from torch import Tensor

from decentral.transport.driver import FreeRun, Step
from decentral.transport.links import BrokenLinkError

SLOWEST = 100
"""How many times longer than this node another may take for its steps before it counts as lost."""


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


class AllThrough:
    """Whether all nodes have made their steps, found out behind the node's own thread.

    Args:
        node: this one, for the thread's name.
        meet: comes together with all other nodes, within so many seconds; raises BrokenLinkError.
        patience_s: how long the others may take.
    """

    def __init__(self, node: int, meet: Callable[[float], object], patience_s: float) -> None:
        self._is_over = Event()
        self._error: BrokenLinkError | None = None
        self._patience_s, self._meet = patience_s, meet
        Thread(target=self._wait, name=f"all-through-{node}", daemon=True).start()

    def _wait(self) -> None:
        try:
            self._meet(self._patience_s)
        except BrokenLinkError as error:
            self._error = error
        finally:
            self._is_over.set()

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

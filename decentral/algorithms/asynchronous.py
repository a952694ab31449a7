"""What asynchronous methods have in common: nodes that step at their own pace, and know how old what they use is.

How stale something is, a node counts in its own steps: 0 if it came since the step before. (The difference to the
step that the sender counts says less: between two that are not equally fast it grows for ever.) With `max_delay` a
node waits where it would use something older. Nobody waits in a circle: who waits for a neighbor has begun its step
later than that one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from decentral.algorithms.algorithm import Algorithm, State
from decentral.peer import LAST, Arrival, Peer

FOR_EVER = 2**62
OLDEST = 128
"""Places of a histogram of staleness; what is older counts in the last."""


@dataclass(slots=True)
class AsynchronousState(State):
    staleness: list[int]  # how often something was used that was 0, 1, 2, ... steps old
    came: dict[int, int]  # at which step the newest came, by neighbor; FOR_EVER where it is the last

    def heard(self, arrivals: Mapping[int, Arrival], peer: Peer) -> None:
        """Note from whom something has come."""
        for sender, arrival in arrivals.items():
            self.came[sender] = FOR_EVER if arrival.step == LAST else peer.round

    def used(self, age: int) -> None:
        """Count something that was so many steps old."""
        place = min(max(age, 0), OLDEST - 1)
        while len(self.staleness) <= place:
            self.staleness.append(0)
        self.staleness[place] += 1


@dataclass(frozen=True, kw_only=True)
class Asynchronous(Algorithm):
    """A method whose nodes have no rounds in common.

    Args:
        max_delay: how many steps old at most that is which a node uses; None for no bound.
    """

    free_running: ClassVar[bool] = True
    staleness_counts: ClassVar[str] = "a node's own steps since it came"

    max_delay: int | None = None

    def is_too_old(self, state: AsynchronousState, peer: Peer) -> bool:
        """Whether what has come from one of the neighbors is older than it may be, or nothing has."""
        if self.max_delay is None:
            return False
        return any(state.came.get(j, -1) < peer.round - self.max_delay for j in peer.row().sources)

    def go_on(self, state: Any, peer: Peer) -> None:
        """Neighbors step again: the last that they sent before the cut counts as new."""
        state.came = {sender: peer.round if step == FOR_EVER else step for sender, step in state.came.items()}

    def staleness(self, state: Any) -> list[int]:
        counted: list[int] = [*state.staleness]
        return counted

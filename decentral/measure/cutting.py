"""When a free run is checkpointed: at its cuts, which come after so many steps or seconds, and on signals.

Steps are of each node's own, and seconds differ, so cuts are counted, and nodes agree on a cut by its number.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from decentral.measure.saving import Keeping, Saver, Signals, saving
from decentral.training.cuts import Cuts, Snapshots
from decentral.transport.world import World


class SavedCuts(Cuts):
    """Cuts at which a run is checkpointed."""

    def __init__(self, saver: Saver, keeping: Keeping) -> None:
        self.every, self.every_s = keeping.section.every, keeping.section.every_s
        self._saver, self._next = saver, 1

    def begin(self, snapshots: Snapshots) -> None:
        self._saver.begin(self._next, snapshots)

    def is_wanted(self) -> bool:
        return self._saver.is_wanted(self._next)

    def at(self, round: int, is_last: bool, snapshots: Snapshots) -> None:
        number, self._next = self._next, self._next + 1
        self._saver.at(number, round, self._saver.is_periodic, is_last, snapshots)


@contextmanager
def cutting(
    keeping: Keeping | None, hosted: Sequence[int], world: World | None, epoch: int, signals: Signals | None = None
) -> Iterator[Cuts]:
    """Where a free run is cut; the arguments are those of `saving`."""
    with saving(keeping, hosted, world, epoch, signals) as boundary:
        yield SavedCuts(boundary, keeping) if keeping and isinstance(boundary, Saver) else Cuts()

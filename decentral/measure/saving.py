"""When a run is checkpointed: every so many rounds, on SIGUSR1, and on SIGTERM before it ends."""

import json
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

from decentral import config
from decentral.errors import LostNeighborError, PreemptedError
from decentral.measure.checkpoints import METRICS, Checkpoints, Entry, Manifest
from decentral.measure.comparison import Evaluation
from decentral.training.checkpoint import Snapshot
from decentral.training.loop import Boundary
from decentral.transport.agreement import Agreement, Wish
from decentral.transport.world import World

_ATTEMPTS = 3
_SIGNALS = {signal.SIGUSR1: Wish.SAVE, signal.SIGTERM: Wish.STOP}


@dataclass(frozen=True)
class Resumed:
    """Where a run goes on."""

    manifest: Manifest
    snapshots: Mapping[int, Snapshot]  # of the hosted nodes
    rows: Sequence[Evaluation]  # the run's evaluations until then


@dataclass(frozen=True)
class Keeping:
    """How a run is checkpointed.

    Attributes:
        run: its folder.
        section: of the experiment.
        manifest: of a checkpoint, but for its round and its files.
        rounds: of the whole run.
        command: what resumes it.
        resumed: where it begins; from the beginning unless given.
    """

    run: Path
    section: config.Checkpoint
    manifest: Manifest
    rounds: int
    command: str
    resumed: Resumed | None = None

    @property
    def saved(self) -> Mapping[int, Snapshot] | None:
        return self.resumed.snapshots if self.resumed else None


class Signals:
    """SIGTERM and SIGUSR1, remembered until a round ends."""

    def __init__(self) -> None:
        self.wish = Wish.NOTHING

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Within it they do not end this process; nothing but the main thread can catch them."""
        if current_thread() is not main_thread():
            yield
            return
        before = {number: signal.signal(number, self._remember) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _remember(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self.wish = max(self.wish, _SIGNALS[signal.Signals(number)])


@contextmanager
def saving(
    keeping: Keeping | None, hosted: Sequence[int], world: World | None, epoch: int, signals: Signals | None = None
) -> Iterator[Boundary]:
    """What the training loop calls between rounds.

    Args:
        keeping: None for a run that is not checkpointed.
        hosted: the nodes of this process.
        world: of all ranks; None in a simulator.
        epoch: number of the run in this job.
        signals: that ask for checkpoints; this process's own unless given.
    """
    if keeping is None:
        yield lambda round, snapshots: None  # noqa: ARG005
        return
    signals = signals or Signals()
    saver = (
        Saver(keeping, signals, hosted)
        if world is None
        else RankSaver(keeping, signals, hosted, world, world.prefixed(epoch, "checkpoint"))
    )
    with signals.caught():
        in_peace = False
        try:
            yield saver
            saver.finish()
            in_peace = True
        finally:
            saver.close(in_peace)


class Saver:
    """Checkpoints of a run whose nodes are all in this process."""

    def __init__(self, keeping: Keeping, signals: Signals, hosted: Sequence[int]) -> None:
        self._keeping, self._signals, self._hosted = keeping, signals, hosted
        self._checkpoints = Checkpoints(keeping.run)
        self._latest = keeping.resumed.manifest.round if keeping.resumed else -1  # saved, or being saved
        self._began = False

    def __call__(self, round: int, snapshots: Callable[[], Mapping[int, Snapshot]]) -> None:
        if not self._began:
            self.begin(round, snapshots)
        self.at(round, round, self._is_due(round), round >= self._keeping.rounds, snapshots)

    def begin(self, number: int, snapshots: Callable[[], Mapping[int, Snapshot]]) -> None:
        """The run begins; the first boundary that it comes to has this number."""
        self._began = True
        self._begin(number)
        if self.is_periodic:
            snapshots()  # what no checkpoint can hold is told now, and not at the first of them

    @property
    def is_periodic(self) -> bool:
        """Whether checkpoints are due without a signal."""
        return self._keeping.section.every is not None or self._keeping.section.every_s is not None

    def at(
        self, number: int, round: int, is_due: bool, is_last: bool, snapshots: Callable[[], Mapping[int, Snapshot]]
    ) -> None:
        """The run has come to a boundary.

        Args:
            number: of the boundary, by which nodes agree on one.
            round: of the checkpoint.
        """
        wish = self._wish(number, is_last)
        if round != self._latest and (wish or is_due):
            self._latest = round
            self._save(round, snapshots())
        if wish is Wish.STOP and not is_last:
            self.finish()
            raise self._preempted(f"the checkpoint of round {round} is whole: go on with `{self._keeping.command}`")

    def is_wanted(self, number: int) -> bool:  # noqa: ARG002  here all nodes come to the next one together
        """Whether a checkpoint is asked for at the next boundary, of this number; asked before that."""
        return self._signals.wish is not Wish.NOTHING

    def _is_due(self, round: int) -> bool:
        every = self._keeping.section.every
        return every is not None and round > 0 and (round % every == 0 or round == self._keeping.rounds)

    def _preempted(self, what: str) -> PreemptedError:
        return PreemptedError(f"SIGTERM ended the run; {what}")

    def _begin(self, round: int) -> None:
        """The first round is about to begin."""

    def _wish(self, number: int, is_last: bool) -> Wish:  # noqa: ARG002
        wish, self._signals.wish = self._signals.wish, Wish.NOTHING
        return wish

    def _save(self, round: int, snapshots: Mapping[int, Snapshot]) -> None:
        entries = self._write(round, snapshots)
        self._checkpoints.finish(round, self._manifest(round, entries).content(), self._keeping.section.keep)

    def _write(self, round: int, snapshots: Mapping[int, Snapshot]) -> dict[str, Entry]:
        metrics = (self._keeping.run / METRICS).read_bytes() if 0 in self._hosted else None
        return self._checkpoints.write(round, snapshots, metrics)

    def _manifest(self, round: int, entries: Mapping[str, Entry]) -> Manifest:
        return self._keeping.manifest.model_copy(update={"round": round, "files": dict(entries)})

    def finish(self) -> None:
        """Until the latest checkpoint is whole."""

    def close(self, in_peace: bool) -> None:
        """Give back what saving needs."""


class RankSaver(Saver):
    """Checkpoints of a run whose nodes are ranks: each writes its own, and node 0 makes them whole."""

    def __init__(self, keeping: Keeping, signals: Signals, hosted: Sequence[int], world: World, store: Any) -> None:
        super().__init__(keeping, signals, hosted)
        self._rank = world.rank
        self._refused = 0
        patience_s = max(world.transport.timeout_s, world.transport.connect_timeout_s)
        self._agreement = Agreement(store, world.rank, world.size, patience_s, self._whole, self._told)

    def _begin(self, round: int) -> None:
        self._agreement.begin(round)

    def is_wanted(self, number: int) -> bool:
        if wish := self._signals.wish:
            self._ask(wish, number)
        return self._agreement.of(number) is not Wish.NOTHING

    def _wish(self, number: int, is_last: bool) -> Wish:
        # After the last round there is nothing to stop, and node 0 may have gone.
        if (wish := self._signals.wish) and not is_last:
            self._ask(wish, number)
        return self._agreement.at(number)

    def _ask(self, wish: Wish, round: int) -> None:
        try:
            if self._agreement.ask(wish, round):
                self._signals.wish = Wish.NOTHING
                return
        except LostNeighborError as error:
            raise self._preempted(f"no checkpoint was written: {error}") from error
        self._refused += 1
        if self._refused < _ATTEMPTS:
            return
        if wish is Wish.STOP:
            raise self._preempted("no checkpoint was written: not all nodes answered")
        self._refused, self._signals.wish = 0, Wish.NOTHING
        warnings.warn("no checkpoint was written on SIGUSR1: not all nodes answered", stacklevel=2)

    def _preempted(self, what: str) -> PreemptedError:
        error = super()._preempted(what)
        error.echo = self._rank > 0
        return error

    def _save(self, round: int, snapshots: Mapping[int, Snapshot]) -> None:
        entries = self._write(round, snapshots)
        report = {name: entry.model_dump() for name, entry in entries.items()}
        self._agreement.written(round, json.dumps(report))

    def _whole(self, round: int, reports: Mapping[int, str]) -> str:
        entries = {
            name: Entry.model_validate(entry) for text in reports.values() for name, entry in json.loads(text).items()
        }
        manifest = self._manifest(round, entries).content()
        self._checkpoints.finish(round, manifest, self._keeping.section.keep)
        return manifest.decode()

    def _told(self, round: int, manifest: str) -> None:
        # A no-op where the ranks share a disk: node 0 has written the same.
        self._checkpoints.finish(round, manifest.encode(), self._keeping.section.keep)

    def finish(self) -> None:
        resumed = self._keeping.resumed
        if self._latest > (resumed.manifest.round if resumed else -1):
            self._agreement.wait_whole(self._latest)

    def close(self, in_peace: bool) -> None:
        self._agreement.close(in_peace)

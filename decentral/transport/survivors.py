"""All ranks that still live, together: for a run that goes on when one of them dies.

Who takes part in an operation is agreed through the store, and after it whether it came through:

- each living rank announces itself, and waits until every other has, or is known to be dead;
- the first to know who is there says so, and that holds for all;
- they perform the operation in a gloo group of just these ranks, the one before if nobody has died since;
- each says whether it came through, and again the first to know all says whether it did; if not, all begin anew.

A rank is dead once a neighbor whose link to it broke, or the launcher, has said so in the store. What it said before
stays said: a rank is known to be dead before its last words are looked for. A rank that lives and was taken for dead
ends: the others do not wait for it any more.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from time import monotonic, sleep
from typing import Any

import torch
from torch import Tensor
from torch.distributed import Store  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import AllgatherOptions, AllreduceOptions, BroadcastOptions  # type: ignore[attr-defined]

from decentral.transport.everyone import Everyone
from decentral.transport.gloo import told
from decentral.transport.links import NO_ANSWER, BrokenLinkError

GROUP_S = 5.0
"""How long a group may take to be made, the first time: whoever dies meanwhile is waited for so long."""
SPARE_ATTEMPTS = 3
"""Beside one for each rank that may die during an operation."""
LEAVING_S = 10.0
"""How long rank 0, which may keep the store, waits at the end until the others need it no more."""
NAPS_S = 5e-4, 2e-2
"""The first and the longest nap between two looks at the store."""

Make = Callable[[str, tuple[int, ...], float], Any]
"""Makes the gloo group of some ranks, this one among them, within so many seconds; the text is its name."""


class LostStoreError(BrokenLinkError):
    """The store is gone, so that the ranks cannot agree on anything any more."""


class Dead:
    """Which ranks of a job are known to be dead: one key of the store for each.

    Args:
        store: the job's.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: set[int] = set()

    def declare(self, ranks: Iterable[int]) -> None:
        """Let all know that these are dead."""
        for rank in set(ranks) - self._known:
            self._store.set(f"dead/{rank}", "1")
            self._known.add(rank)

    def among(self, ranks: Collection[int]) -> set[int]:
        """Those of some ranks that are known to be dead."""
        self._known |= {rank for rank in set(ranks) - self._known if self._store.check([f"dead/{rank}"])}
        return self._known & set(ranks)


def say_linked(store: Store, rank: int) -> None:
    """Let the launcher know that a rank has its links: from now on the others go on without it."""
    store.set(f"linked/{rank}", "1")


def all_linked(store: Store, size: int) -> bool:
    """Whether all ranks have said so."""
    return bool(store.check([f"linked/{rank}" for rank in range(size)]))


class SurvivingEveryone(Everyone):
    """The living ranks of one run.

    Args:
        rank: this one.
        size: how many there were at the start.
        store: of this run and purpose alone.
        dead: the job's.
        make: makes a group.
        failed: whether a rank has reported a fault that ends the run.
    """

    name = "gloo, survivors"

    def __init__(
        self, rank: int, size: int, store: Store, dead: Dead, make: Make, failed: Callable[[], bool] = lambda: False
    ) -> None:
        self._rank, self._size, self._store, self._dead = rank, size, store, dead
        self._make, self._failed = make, failed
        self.members: tuple[int, ...] = tuple(range(size))
        self._group: Any = None  # of the members, once it is made
        self._number = 0  # of the operation
        self._said: dict[int, list[str]] = {}  # by operation, the keys that this rank has set

    def add_up(self, x: Tensor, timeout_s: float) -> None:
        def begin(group: Any) -> tuple[Any, Tensor]:
            total, options = x.clone(), AllreduceOptions()
            options.timeout = timedelta(seconds=timeout_s)
            return group.allreduce([total], options), total

        x.copy_(self._performed(begin, timeout_s))

    def gather(self, own: Tensor, timeout_s: float, out: Tensor | None = None) -> Tensor:
        """As `Everyone` says; NaN in the rows of the dead."""

        def begin(group: Any) -> tuple[Any, Tensor]:
            rows, options = own.new_empty((len(self.members), *own.shape)), AllgatherOptions()
            options.timeout = timedelta(seconds=timeout_s)
            return group.allgather([[*rows]], [own], options), rows

        found = self._performed(begin, timeout_s)
        rows = own.new_empty((self._size, *own.shape)) if out is None else out
        rows.fill_(torch.nan if rows.is_floating_point() else 0)
        rows[[*self.members]] = found
        return rows

    def broadcast(self, x: Tensor, timeout_s: float) -> None:
        def begin(group: Any) -> tuple[Any, Tensor]:
            copy, options = x.clone(), BroadcastOptions()
            options.timeout = timedelta(seconds=timeout_s)
            return group.broadcast([copy], options), copy

        x.copy_(self._performed(begin, timeout_s))

    def _performed(self, begin: Callable[[Any], tuple[Any, Tensor]], timeout_s: float) -> Tensor:
        """Perform an operation until it comes through for all who live by then; what it found.

        Raises:
            BrokenLinkError: a rank that lives did not come in time, or this one was taken for dead.
            LostStoreError: nothing can be agreed on any more.
        """
        with self._talking():
            self._number += 1
            self._forget(self._number - 2)
            for attempt in range(self._size + SPARE_ATTEMPTS):
                place = f"{self._number}/{attempt}"
                self._meet(place, timeout_s)
                found = self._tried(begin, place, timeout_s, patience=2**attempt)
                if self._came_through(place, found is not None, timeout_s):
                    assert found is not None, "another rank said that this one's operation came through"
                    return found
                self._group = None
        raise BrokenLinkError(f"it failed {attempt + 1} times")

    def _meet(self, place: str, timeout_s: float) -> None:
        """Agree on the members of an attempt."""
        self._say(f"{place}/here/{self._rank}", "1")
        there = self._who_said(f"{place}/here", self.members, timeout_s)
        there -= self._dead.among(there)
        verdict = self._agreed(f"{place}/members", ",".join(map(str, sorted(there))))
        members = tuple(int(rank) for rank in verdict.split(",") if rank)
        if self._rank not in members:
            raise BrokenLinkError("the others took this node for dead, since a link to it broke")
        if members != self.members:
            self._group = None
        self.members = members

    def _tried(
        self, begin: Callable[[Any], tuple[Any, Tensor]], place: str, timeout_s: float, patience: int
    ) -> Tensor | None:
        """What the operation found; None where it failed, and with its group all members' waits for this one."""
        try:
            if self._group is None:
                self._group = self._make(place, self.members, min(GROUP_S * patience, timeout_s))
            work, found = begin(self._group)
            work.wait(timedelta(seconds=timeout_s))
        except RuntimeError:
            self._group = None
            return None
        return found

    def _came_through(self, place: str, here: bool, timeout_s: float) -> bool:
        """Agree on whether an operation came through."""
        self._say(f"{place}/done/{self._rank}", "yes" if here else "no")
        said = self._who_said(f"{place}/done", self.members, timeout_s)
        answers = {self._store.get(f"{place}/done/{rank}") for rank in said}
        return self._agreed(f"{place}/verdict", "yes" if answers == {b"yes"} else "no") == "yes"

    def _who_said(self, prefix: str, ranks: Collection[int], timeout_s: float) -> set[int]:
        """Those of some ranks that have said something, once all others are dead."""
        deadline, nap_s, silent = monotonic() + timeout_s, NAPS_S[0], set(ranks)
        while not self._store.check([f"{prefix}/{rank}" for rank in sorted(silent)]):
            self._dead.declare(self.noticed())
            dead = self._dead.among(silent)
            silent -= {rank for rank in silent if self._store.check([f"{prefix}/{rank}"])}
            if silent <= dead:
                return set(ranks) - silent
            if self._failed():
                raise BrokenLinkError("another node failed")
            if monotonic() > deadline:
                raise BrokenLinkError(f"{NO_ANSWER} of node {min(silent - dead)}, which nobody knows to be dead")
            sleep(nap_s)
            nap_s = min(2 * nap_s, NAPS_S[1])
        return set(ranks)

    def _say(self, key: str, value: str) -> None:
        self._store.set(key, value)
        self._said.setdefault(self._number, []).append(key)

    def _agreed(self, key: str, own: str) -> str:
        """The first rank's word, for all."""
        verdict = self._store.compare_set(key, "", own)
        if self._rank == min(self.members):
            self._said.setdefault(self._number, []).append(key)
        return str(verdict.decode())

    def _forget(self, number: int) -> None:
        """Take back what this rank said of an operation that nobody looks at any more."""
        for key in self._said.pop(number, ()):
            self._store.delete_key(key)

    @contextmanager
    def _talking(self) -> Iterator[None]:
        """Within it the store is talked to."""
        try:
            yield
        except RuntimeError as error:
            raise LostStoreError(told(error)) from error

    def leave(self) -> None:
        """Rank 0, in whose process the store may be, waits until nobody needs it."""
        with suppress(RuntimeError, BrokenLinkError):
            self._store.set(f"left/{self._rank}", "1")
            if self._rank == 0 and not self._failed():
                self._who_said("left", self.members, LEAVING_S)

    def close(self) -> None:
        self._group = None

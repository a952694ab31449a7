"""Pushes over MPI between two ranks of one host: one-sided, into memory of the receiver's that both have in a window.

A message of MPI's moves while both ends are in calls to it, and the receiver's threads take part. Here the pusher alone
works: what it pushes is there when its call ends, whatever the receiver is at (`tests.transport.mpi_windows_seconds`).

Each end of an edge has three slots and a word. One slot is the pusher's, to write; one the receiver's, to read; the
word names the third, and says whether what is in it has not been looked at. Whoever is done with a slot exchanges it
for the third one in one atomic step (MPI_Compare_and_swap), so nothing is read that is half written, and nobody waits.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from shutil import disk_usage
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from decentral.errors import MissingEnvironmentError
from decentral.peer import Payload
from decentral.transport.frames import Stamp, fill, payload_views

_MEMORY = Path("/dev/shm")
"""Where Open MPI has its windows."""
_PAGE_BYTES = 1 << 12
_PREFIX_BYTES = 64
"""Of a slot, before the frame: when that was written, by the host's clock."""
_FRESH = 4
"""Set in the word, beside a slot's number, while the receiver has not looked."""


class Found(NamedTuple):
    """What the receiver finds: a frame that lives until the next one is found, and how old it is."""

    frame: Tensor  # (bytes,) uint8, as long as frames can be
    age_s: float


class _End(NamedTuple):
    """What one rank receives into."""

    word: Any  # (1,) int64
    slots: Tensor  # (3, bytes) uint8


def _slot_bytes(largest: int) -> int:
    return -(-(_PREFIX_BYTES + largest) // _PAGE_BYTES) * _PAGE_BYTES


class Window:
    """One edge, in both directions. Both ranks make it at about the same time.

    Args:
        mpi: mpi4py's MPI.
        pair: a communicator of the two.
        largest: bytes of the longest frame.
    """

    def __init__(self, mpi: Any, pair: Any, largest: int) -> None:
        self.largest = largest
        self._mpi, self._pair, self._rank = mpi, pair, pair.rank
        self._slot_bytes = _slot_bytes(largest)
        self._window = mpi.Win.Allocate_shared(_PAGE_BYTES + 3 * self._slot_bytes, 1, comm=pair)
        self._window.Lock_all(mpi.MODE_NOCHECK)
        self._ends = [self._end(rank) for rank in (0, 1)]
        self._old, self._new, self._was = np.zeros((3, 1), dtype=np.int64)

    def _end(self, rank: int) -> _End:
        memory = np.frombuffer(self._window.Shared_query(rank)[0], dtype=np.uint8)
        slots = torch.from_numpy(memory[_PAGE_BYTES:][: 3 * self._slot_bytes]).view(3, self._slot_bytes)
        return _End(memory[:8].view(np.int64), slots)

    def begin(self) -> None:
        """Forget what was pushed in an earlier run; both ranks together, before the first push."""
        self._ends[self._rank].word[0] = 0
        self._writes, self._reads = 1, 2
        self.sent_bytes = 0
        self.tell: Callable[[int], None] = lambda _: None
        self._window.Sync()
        self._pair.Barrier()

    def write(self, stamp: Stamp, payload: Payload, adds: bool) -> bool:
        """Push something; whether it took the place of what the receiver had not looked at, or was added to it."""
        end = self._ends[1 - self._rank]
        was_there = adds and self._taken_back(end)
        slot = end.slots[self._writes]
        frame = slot[_PREFIX_BYTES : _PREFIX_BYTES + stamp.frame_bytes]
        views = payload_views(frame, payload)
        if was_there:
            for total, tensor in zip(views, payload, strict=True):
                total.add_(tensor.to(total.device))
        fill(frame, stamp, views if was_there else payload)
        slot[:8].view(torch.int64)[0] = perf_counter_ns()
        self._window.Sync()
        while not self._swapped(1 - self._rank, old := int(end.word[0]), self._writes | _FRESH):
            pass
        self._writes = old & 3
        self.sent_bytes += stamp.frame_bytes
        self.tell(stamp.frame_bytes)
        return was_there or bool(old & _FRESH)

    def _taken_back(self, end: _End) -> bool:
        """Whether what the receiver has not looked at is this end's again."""
        old = int(end.word[0])
        if not old & _FRESH or not self._swapped(1 - self._rank, old, self._writes):
            return False
        self._writes = old & 3
        return True

    @property
    def is_fresh(self) -> bool:
        """Whether something is there that has not been looked at."""
        return bool(int(self._ends[self._rank].word[0]) & _FRESH)

    def take(self) -> Found | None:
        """What is there, if anything."""
        end = self._ends[self._rank]
        while (old := int(end.word[0])) & _FRESH:
            if self._swapped(self._rank, old, self._reads):
                self._reads = old & 3
                self._window.Sync()
                slot = end.slots[self._reads]
                age_s = (perf_counter_ns() - int(slot[:8].view(torch.int64)[0])) / 1e9
                return Found(slot[_PREFIX_BYTES : _PREFIX_BYTES + self.largest], max(age_s, 0.0))
        return None

    def _swapped(self, rank: int, old: int, new: int) -> bool:
        """Whether a word was the old one still, and is the new one now."""
        self._old[0], self._new[0] = old, new
        self._window.Compare_and_swap(self._new, self._old, self._was, rank, 0)
        self._window.Flush(rank)
        return int(self._was[0]) == old


class Near:
    """The ranks of this host, and the windows to them. All ranks make it together.

    Windows are kept until the process ends: to free one takes both ranks, and one of them may be gone. There are none
    where those of all pairs would not fit into the host's shared memory: whoever touches what is not there is killed.

    Args:
        mpi: mpi4py's MPI.
        comm: a communicator of all ranks.
        among: makes a communicator of some, which take part.
    """

    def __init__(self, mpi: Any, comm: Any, among: Callable[[Sequence[int]], Any]) -> None:
        here = comm.Split_type(mpi.COMM_TYPE_SHARED)
        self._ranks = set(here.group.Translate_ranks(None, comm.group))
        free_bytes = disk_usage(_MEMORY).free if _MEMORY.is_dir() else 0
        self._room_bytes = here.allreduce(free_bytes, mpi.MIN) // max(len(self._ranks) * (len(self._ranks) - 1) // 2, 1)
        here.Free()
        self._mpi, self._rank, self._among = mpi, comm.rank, among
        self._windows: dict[int, Window] = {}

    def window(self, neighbor: int, largest: int) -> Window | None:
        """What is pushed through to another rank, begun anew; None where there is none. Both ranks together.

        Raises:
            MissingEnvironmentError: MPI refuses it.
        """
        needed_bytes = 2 * (_PAGE_BYTES + 3 * _slot_bytes(largest))
        may_be = neighbor in self._ranks and needed_bytes <= self._room_bytes
        if not may_be or self._mpi.Query_thread() != self._mpi.THREAD_MULTIPLE:
            return None
        if neighbor not in self._windows or self._windows[neighbor].largest < largest:
            try:
                self._windows[neighbor] = Window(self._mpi, self._among(sorted((self._rank, neighbor))), largest)
            except self._mpi.Exception as error:
                raise MissingEnvironmentError(
                    f"MPI gives ranks {self._rank} and {neighbor} no window of {needed_bytes / 1e6:.1f} MB ({error}); "
                    "use transport: auto"
                ) from error
        self._windows[neighbor].begin()
        return self._windows[neighbor]


class Windows:
    """Those of one node, by neighbor."""

    def __init__(self, windows: Mapping[int, Window]) -> None:
        self._windows = windows

    def __bool__(self) -> bool:
        return bool(self._windows)

    def to(self, neighbor: int) -> Window | None:
        """The one to a neighbor, if there is one."""
        return self._windows.get(neighbor)

    def take(self) -> Iterator[tuple[int, Found]]:
        """All that is there."""
        for neighbor, window in self._windows.items():
            if (found := window.take()) is not None:
                yield neighbor, found

    @property
    def fresh(self) -> int:
        """How many neighbors have pushed what has not been looked at."""
        return sum(window.is_fresh for window in self._windows.values())

    @property
    def sent_bytes(self) -> int:
        """To all neighbors in this run, headers included."""
        return sum(window.sent_bytes for window in self._windows.values())

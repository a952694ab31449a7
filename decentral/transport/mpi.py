"""Links and operations of all ranks by MPI: persistent requests over NumPy views of the frames' memory, used again and
again."""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor

from decentral.transport.everyone import Everyone
from decentral.transport.links import Finish, Link, Wait
from decentral.transport.office import Office, mpi
from decentral.transport.windows import Window

_UNSENT: list["MPILink"] = []
"""Closed links whose memory must outlive them."""


class MPILink(Link):
    """One edge by MPI's point-to-point messages.

    Args:
        office: this process's.
        neighbor: its node, which is its rank.
        tag: of this run's messages.
        largest: bytes of the largest frame that will ever come, for receives to be posted ahead; 0 if not known.
        window: what is pushed through in place of messages, if anything.
    """

    name = "MPI"
    polled = True

    def __init__(self, office: Office, neighbor: int, tag: int, largest: int = 0, window: Window | None = None) -> None:
        self._window = window
        self._office, self._neighbor, self._tag, self._largest = office, neighbor, tag, largest
        self._sends: dict[int, Any] = {}  # by the frame's address
        self._puts: dict[int, Any] = {}  # by the frame's address
        self._receives: dict[int, tuple[Tensor, Any]] = {}  # by the buffer's address
        self._free: dict[int, list[int]] = {}  # by size, buffers that nothing is received into
        self._ahead: deque[int] = deque()  # buffers posted before their exchange began
        self._active: set[int] = set()  # buffers that MPI may write to
        self._letter: int | None = None  # the buffer that waits for a letter

    def start(self, outgoing: Tensor | None, incoming: int, overlapped: bool) -> Finish:
        requests, address = [], None
        try:
            if incoming:
                address = self._ahead.popleft() if self._ahead else self._receive(incoming)
                requests.append(self._receives[address][1])
            if outgoing is not None:
                requests.append(self._send(outgoing))
        except self._office.errors() as error:
            raise self._office.broken(error) from error
        if overlapped:
            self._office.overlap(+1)
        return partial(self._finish, requests, address, incoming, overlapped)

    def send(self, frame: Tensor) -> Wait:
        try:
            request = self._send(frame)
        except self._office.errors() as error:
            raise self._office.broken(error) from error
        self._office.overlap(+1)
        return partial(self._sent, request)

    def _sent(self, request: Any, timeout_s: float) -> None:
        self._office.overlap(-1)
        self._office.wait([request], timeout_s)

    @property
    def pushes(self) -> bool:
        return self._office.threads_may_call()

    def window(self, size: int) -> Window | None:
        return self._window if self._window is not None and size <= self._window.largest else None

    def put(self, frame: Tensor) -> None:
        address = frame.data_ptr()
        try:
            if address not in self._puts:
                # Synchronous, so that nothing piles up in MPI's own memory before a neighbor that takes nothing.
                self._puts[address] = self._office.comm.Ssend_init(frame.numpy(), self._neighbor, self._tag)
            self._puts[address].Start()
        except self._office.errors() as error:
            raise self._office.broken(error) from error

    def is_through(self, frame: Tensor) -> bool:
        try:
            return bool(self._puts[frame.data_ptr()].Test())
        except self._office.errors() as error:
            raise self._office.broken(error) from error

    def poll(self, size: int) -> Tensor | None:
        self._largest = 0  # letters are received one by one
        try:
            if self._letter is None:
                self._letter = self._receive(size)
            buffer, request = self._receives[self._letter]
            if not request.Test():
                return None
        except self._office.errors() as error:
            raise self._office.broken(error) from error
        self._active.discard(self._letter)
        self._letter = None
        return buffer

    def _send(self, frame: Tensor) -> Any:
        address = frame.data_ptr()
        if address not in self._sends:
            self._sends[address] = self._office.comm.Send_init(frame.numpy(), self._neighbor, self._tag)
        self._sends[address].Start()
        return self._sends[address]

    def _receive(self, size: int) -> int:
        size = max(size, self._largest)
        free = self._free.setdefault(size, [])
        if not free:
            buffer = torch.zeros(size, dtype=torch.uint8)
            request = self._office.comm.Recv_init(buffer.numpy(), self._neighbor, self._tag)
            self._receives[buffer.data_ptr()] = buffer, request
            free.append(buffer.data_ptr())
        address = free.pop()
        self._receives[address][1].Start()
        self._active.add(address)
        return address

    def _finish(
        self, requests: Sequence[Any], address: int | None, size: int, overlapped: bool, timeout_s: float
    ) -> Tensor | None:
        if overlapped:
            self._office.overlap(-1)
        self._office.wait(requests, timeout_s)
        if address is None:
            return None
        self._active.discard(address)
        return self._receives[address][0][:size]

    def release(self, frame: Tensor) -> None:
        address = frame.data_ptr()
        buffer, _ = self._receives[address]
        self._free[buffer.numel()].append(address)
        if self._largest:
            self._ahead.append(self._receive(self._largest))

    def close(self) -> None:
        with suppress(self._office.errors()):  # a neighbor that has gone
            for address in self._active:
                request = self._receives[address][1]
                request.Cancel()
                request.Wait()
            if not all(request.Test() for request in (*self._sends.values(), *self._puts.values())):
                _UNSENT.append(self)  # MPI may still read these frames: a neighbor that ended early never took them
        self._receives.clear()


class MPIEveryone(Everyone):
    """All ranks, or some, together by MPI's nonblocking collectives.

    Args:
        office: this process's.
        among: ascending ranks, which all make this at about the same time; None for all.
    """

    name = "MPI"

    def __init__(self, office: Office, among: Sequence[int] | None = None) -> None:
        self._office = office
        self._own = None if among is None else office.among(among)
        self._comm = self._own or office.comm

    def add_up(self, x: Tensor, timeout_s: float) -> None:
        self._perform(partial(self._comm.Iallreduce, mpi().IN_PLACE, x.numpy()), timeout_s)

    def gather(self, own: Tensor, timeout_s: float, out: Tensor | None = None) -> Tensor:
        rows = own.new_empty((self._comm.size, *own.shape)) if out is None else out
        self._perform(partial(self._comm.Iallgather, own.numpy(), rows.numpy()), timeout_s)
        return rows

    def broadcast(self, x: Tensor, timeout_s: float) -> None:
        self._perform(partial(self._office.comm.Ibcast, x.numpy()), timeout_s)

    def _perform(self, begin: Callable[[], Any], timeout_s: float) -> None:
        try:
            request = begin()
        except self._office.errors() as error:
            raise self._office.broken(error) from error
        self._office.wait([request], timeout_s)

    def close(self) -> None:
        """Nothing of its own, but for some ranks their communicator."""
        if self._own is not None:
            with suppress(self._office.errors()):
                self._own.Free()
            self._own = None

"""Links over two-rank process groups that are used in one global order of edges: how NCCL is used without deadlock.

Several communicators on one GPU need an order that all ranks agree on. Color the edges so that those of one color are a
matching, and let every rank perform its exchanges color by color, whatever goes over an edge as one operation: one
direction, or both. Then no rank can wait for ever: of all operations that are still to be done take the first in the
order (exchange, color). Both its ends know of it, from their rows of the mixing matrix, and have done all that comes
before, so both are at it, and it goes through. The edges of one color run at once.

The host waits for nothing here: transfers are put on a side stream, and the computation's stream waits for a mark in
it. Headers are copied to the host behind the transfer and checked when they are there, which is an exchange or two
later: a frame that is refused may have been used by then. Where the host would run more than two exchanges ahead, or
wants a result, it waits with a deadline, so a neighbor that is gone is told and not waited for.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from time import monotonic, sleep
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed import Store  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import AllreduceOptions

from decentral.peer import Payload
from decentral.transport.everyone import Circle
from decentral.transport.frames import HEADER_BYTES, FrameError, Stamp, check_header, payload_views
from decentral.transport.gloo import told
from decentral.transport.links import NO_ANSWER, BrokenLinkError, Finish, Link, Outbox
from decentral.transport.side import Mark, Side

MakeGroup = Callable[[Store, int, int, float], Any]
"""Makes a process group outside torch's registry: its store, this rank in it, its size, and seconds to connect."""

_AHEAD = 2
"""Exchanges that the host may be ahead of an edge."""
_NAP_S = 1e-4


class Engine(NamedTuple):
    """What colored links run on.

    Attributes:
        name: for messages.
        make: makes process groups.
        side: where this node's transfers run.
        identity: of the memory that this node computes in; no two ends of an edge may share it. None if that is no
            matter.
    """

    name: str
    make: MakeGroup
    side: Side
    identity: str | None = None


class SideOutbox(Outbox):
    """Outgoing frames in the memory that a side's transfers read, filled on that side."""

    def __init__(self, side: Side) -> None:
        super().__init__()
        self._side = side

    def _allocated(self, size: int) -> Tensor:
        return self._side.memory(size)

    def fill(self, frame: Tensor, stamp: Stamp, payload: Payload) -> None:
        note = self._side.notes(HEADER_BYTES)
        note.copy_(torch.frombuffer(bytearray(stamp.pack()), dtype=torch.uint8))
        with self._side.entered():
            frame[:HEADER_BYTES].copy_(note, non_blocking=True)
            for view, tensor in zip(payload_views(frame, payload), payload, strict=True):
                view.copy_(tensor, non_blocking=True)


class _Unchecked(NamedTuple):
    done: Mark
    header: tuple[Tensor, Stamp] | None  # of the frame that came in, and what is waited for; None if none came


class ColoredLink(Link):
    """One edge, in an order of edges that all nodes share.

    Args:
        engine: of this node.
        store: where the two ends find each other; the caller prefixes it with edge and epoch.
        end: 0 at the lower-numbered node, 1 at the other.
        connect_s: seconds to connect; the first tiny exchange is part of it.
        timeout_s: seconds that one exchange may take.
    """

    letters = False  # NCCL receives from no source but a named one

    def __init__(self, engine: Engine, store: Store, end: int, connect_s: float, timeout_s: float) -> None:
        self.name = engine.name
        self._side, self._other, self._timeout_s = engine.side, 1 - end, timeout_s
        self._group = engine.make(store, end, 2, connect_s)
        self._free: dict[int, list[Tensor]] = {}  # by size
        self._headers: dict[int, tuple[Mark, Tensor]] = {}  # of frames that came in, by address
        self._unchecked: deque[_Unchecked] = deque()
        self._broken = False
        self._shake_hands(connect_s)

    def _shake_hands(self, connect_s: float) -> None:
        """Communicators are made by their first operation: make this one now, where its turn is."""
        self._swap(self._side.memory(1), self._side.memory(1), connect_s)
        self._wait_for(self._side.mark(), connect_s)

    def start(self, outgoing: Tensor | None, incoming: int, overlapped: bool) -> Finish:  # noqa: ARG002  the side is always beside
        self._keep_up()
        if not incoming:
            self._swap(outgoing, None, self._timeout_s)
            return partial(self._finish, self._side.mark(), None)
        free = self._free.get(incoming)
        frame = free.pop() if free else self._side.memory(incoming)
        header = self._side.notes(min(HEADER_BYTES, incoming))
        self._swap(outgoing, frame, self._timeout_s, header)
        done = self._side.mark()
        self._headers[frame.data_ptr()] = done, header
        return partial(self._finish, done, frame)

    def _swap(
        self, outgoing: Tensor | None, incoming: Tensor | None, timeout_s: float, header: Tensor | None = None
    ) -> None:
        try:
            with self._side.entered():
                for work in _as_one(self._group, outgoing, incoming, self._other):
                    self._side.follow(work, timeout_s)
                if header is not None and incoming is not None:
                    header.copy_(incoming[:HEADER_BYTES], non_blocking=True)
        except RuntimeError as error:
            self._broken = True
            raise BrokenLinkError(told(error)) from error

    def _finish(self, done: Mark, incoming: Tensor | None, timeout_s: float) -> Tensor | None:  # noqa: ARG002  no waiting here
        self._side.hold(done)
        if incoming is None:
            self._unchecked.append(_Unchecked(done, None))
        return incoming

    def check(self, frame: Tensor, expected: Stamp) -> None:
        done, header = self._headers.pop(frame.data_ptr())
        self._unchecked.append(_Unchecked(done, (header, expected)))
        self._check_what_is_there()

    def _check_what_is_there(self) -> None:
        while self._unchecked and self._unchecked[0].done.query():
            _, came = self._unchecked.popleft()
            if came is None:
                continue
            header, expected = came
            try:
                check_header(header.numpy().tobytes(), expected)
            except FrameError as error:
                raise FrameError(f"{error} (in the frame of round {expected.round})") from error

    def _keep_up(self) -> None:
        if len(self._unchecked) > _AHEAD:
            self._wait_for(self._unchecked[-1 - _AHEAD].done, self._timeout_s)

    def settle(self, timeout_s: float) -> None:
        if self._unchecked:
            self._wait_for(self._unchecked[-1].done, timeout_s)
        self._check_what_is_there()

    def _wait_for(self, mark: Mark, timeout_s: float) -> None:
        try:
            wait_for(mark, timeout_s)
        except BrokenLinkError:
            self._broken = True
            raise

    def release(self, frame: Tensor) -> None:
        self._free.setdefault(frame.numel(), []).append(frame)

    def close(self) -> None:
        end(self._group, self._broken)
        self._group = None
        self._free.clear()
        self._headers.clear()
        self._unchecked.clear()


class ColoredCircle(Circle):
    """Some ranks together, for sums on the side; made by their first operation.

    Args:
        engine: of this node.
        make: makes the process group.
    """

    def __init__(self, engine: Engine, make: Callable[[], Any]) -> None:
        self.name, self.place = engine.name, engine.side.place
        self._side, self._make = engine.side, make
        self._group: Any = None
        self._done: Mark | None = None
        self._broken = False

    def add_up(self, x: Tensor, timeout_s: float) -> None:
        options = AllreduceOptions()
        options.timeout = timedelta(seconds=timeout_s)
        try:
            self._group = self._group or self._make()
            if self._done is not None:
                wait_for(self._done, timeout_s)
            with self._side.entered():
                self._side.follow(self._group.allreduce([x], options), timeout_s)
        except (RuntimeError, BrokenLinkError) as error:
            self._broken = True
            raise BrokenLinkError(told(error)) from error
        self._done = self._side.mark()
        self._side.hold(self._done)

    def settle(self, timeout_s: float) -> None:
        if self._done is not None:
            try:
                wait_for(self._done, timeout_s)
            except BrokenLinkError:
                self._broken = True
                raise

    def close(self) -> None:
        end(self._group, self._broken)
        self._group = self._done = None


def _as_one(group: Any, outgoing: Tensor | None, incoming: Tensor | None, other: int) -> list[Any]:
    """Begin to send, to receive, or both as one operation, where the engine has such; what is to be waited for."""
    together = group.supports_coalescing
    if together:
        group._start_coalescing()
    begun = []
    if incoming is not None:
        begun.append(group.recv([incoming], other, 0))
    if outgoing is not None:
        begun.append(group.send([outgoing], other, 0))
    return [group._end_coalescing()] if together else begun


def wait_for(mark: Mark, timeout_s: float) -> None:
    """Wait on the host until a mark is reached.

    Raises:
        BrokenLinkError: it was not, within `timeout_s` seconds.
    """
    deadline = monotonic() + timeout_s
    while not mark.query():
        if monotonic() > deadline:
            raise BrokenLinkError(NO_ANSWER)
        sleep(_NAP_S)


def end(group: Any, broken: bool) -> None:
    """Give a process group back; one whose other end is gone would never end by itself."""
    with suppress(RuntimeError, AttributeError):
        if group is not None and broken:
            group.abort()

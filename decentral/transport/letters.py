"""The letters of one node over its links: sent one by one, and received from any neighbor, in whatever order they come.

Each link has a reader, a thread that sleeps in the link until a letter is there, and puts it into the node's inbox; so
a node that waits for a letter of any neighbor takes no time of its core, and two that send to each other at once both
find a reader at the other end. Where a link can only be polled (MPI moves messages in its calls alone), it is polled
while the node waits, with naps.

A link's letters are numbered, and each says the round of its sender; one of a round that this node has not begun waits
for it. Whoever leaves says farewell on each link, which ends the reader at the other end: in peace with the round that
it would begin next, otherwise with round 0. Whoever hears a farewell in a round that its sender has not ended waits in
vain, and is told so.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic, sleep
from typing import NamedTuple
from zlib import crc32

from torch import Tensor

from decentral.errors import LostNeighborError, MissingEnvironmentError
from decentral.peer import Letter, Payload, Receive, Send
from decentral.transport.driver import kind_of
from decentral.transport.frames import (
    HEADER_BYTES,
    FrameError,
    Stamp,
    check_fields,
    payload_bytes,
    payload_views,
    read_header,
    signature,
)
from decentral.transport.links import CLOSED, NO_ANSWER, BrokenLinkError, Link, Outbox, Wait
from decentral.transport.wiring import Wires

FAREWELL = crc32(b"farewell")
"""The signature of the frame without a payload that is a link's last."""

UNDER_WAY = 2
"""Letters that a link may have under way before the next one waits for the first of them."""
NAPS_S = 1e-4, 1e-3
"""The first and the longest nap between two polls of links that have no readers."""
HURRY_S = 2.0
"""How long a node that failed waits for its readers."""


class _Came(NamedTuple):
    neighbor: int
    frame: Tensor | BrokenLinkError


class _Kept(NamedTuple):
    neighbor: int
    frame: Tensor
    round: int
    kind: int


@dataclass(slots=True)
class _Line:
    """What passes over one link."""

    link: Link
    outbox: Outbox
    sent: int = 0  # letters
    taken: int = 0
    under_way: deque[tuple[Wait, Tensor]] = field(default_factory=deque)
    reader: Thread | None = None
    ended: bool = False  # no more will come
    said_farewell: bool = False


class Letters:
    """All letters of one node.

    Args:
        node: this one.
        wires: the links to its neighbors in the graph.
        run: 64-bit digest of the experiment; both ends of a link must have the same.
        epoch: incarnation of the links.
        timeout_s: how long to wait for a letter, and for a neighbor to take one.
        bytes_sent: the driver's count, by node.
    """

    def __init__(
        self, node: int, wires: Wires, run: int, epoch: int, timeout_s: float, bytes_sent: dict[int, int]
    ) -> None:
        self._node, self._run, self._epoch, self._timeout_s = node, run, epoch, timeout_s
        self._bytes_sent = bytes_sent
        self._lines = {j: _Line(link, bundle.outbox) for bundle in wires.bundles for j, link in bundle.links.items()}
        self._inbox: SimpleQueue[_Came] = SimpleQueue()
        self._kept: deque[_Kept] = deque()
        self._open: tuple[Link, Tensor] | None = None  # the frame that the node may look at
        self._kinds: tuple[Payload, ...] = ()
        self._signatures: list[int] = []  # of the kinds
        self._size = 0  # of the largest frame
        self._round = 0

    @property
    def used(self) -> bool:
        """Whether the node has sent or waited for a letter."""
        return bool(self._kinds)

    def begin_round(self, round: int) -> None:
        """Letters of this round may be looked at from now on."""
        self._round = round

    def end_round(self) -> None:
        """The node looks at no letter any more."""
        self._close_open()

    def send(self, asked: Send) -> None:
        """Send a letter; it may still be on its way when this returns.

        Raises:
            LostNeighborError: the neighbor is gone, or takes none.
            RuntimeError: the payload is of none of the kinds, or the node has no link to this one.
        """
        self._begin(asked.kinds)
        kind = self._signatures[kind_of(asked.payload, asked.kinds, self._node)]
        if (line := self._lines.get(asked.to)) is None:
            raise RuntimeError(f"node {self._node} has no link to node {asked.to}, which it sends a letter to")
        began, nbytes = monotonic(), payload_bytes(asked.payload)
        try:
            self._put(line, asked.payload, kind, self._round)
        except BrokenLinkError as error:
            raise self._lost(asked.to, "Send", str(error), monotonic() - began) from error
        self._bytes_sent[self._node] += HEADER_BYTES + nbytes

    def _put(self, line: _Line, payload: Payload, kind: int, round: int) -> None:
        if len(line.under_way) >= UNDER_WAY:
            self._finish(line, self._timeout_s)
        nbytes = payload_bytes(payload)
        frame = line.outbox.take(HEADER_BYTES + nbytes)
        line.outbox.fill(frame, Stamp(self._run, self._epoch, self._node, round, line.sent, kind, nbytes), payload)
        line.sent += 1
        wait = line.link.send(frame)
        if wait is None:
            line.outbox.give_back(frame)
        else:
            line.under_way.append((wait, frame))

    @staticmethod
    def _finish(line: _Line, timeout_s: float) -> None:
        wait, frame = line.under_way.popleft()
        wait(timeout_s)
        line.outbox.give_back(frame)

    def receive(self, asked: Receive) -> Letter:
        """The next letter of this round or an earlier one; the last one is closed.

        Raises:
            LostNeighborError: a neighbor is gone, none sent anything in time, or one sent something else.
        """
        self._begin(asked.kinds)
        self._close_open()
        began = monotonic()
        while (kept := self._due()) is None:
            came = self._next(began + self._timeout_s)
            if came is None:
                raise LostNeighborError(
                    f"node {self._node} waited {self._timeout_s:.1f} s for a letter of any of its neighbors in round "
                    f"{self._round} (Receive, {self._names()}); raise transport.timeout_s where a round takes longer"
                )
            if isinstance(came.frame, BrokenLinkError):
                raise self._lost(came.neighbor, "Receive", str(came.frame), monotonic() - began)
            self._sort(came.neighbor, came.frame)
        link, like = self._lines[kept.neighbor].link, self._kinds[kept.kind]
        self._open = link, kept.frame
        views = payload_views(kept.frame, like)
        return Letter(kept.neighbor, kept.kind, tuple(v.to(t.device) for v, t in zip(views, like, strict=True)))

    def _due(self) -> _Kept | None:
        for kept in self._kept:
            if kept.round <= self._round:
                self._kept.remove(kept)
                return kept
        return None

    def _sort(self, neighbor: int, frame: Tensor) -> None:
        """Keep a letter until it is due."""
        line = self._lines[neighbor]
        try:
            stamp = read_header(frame[:HEADER_BYTES].numpy().tobytes())
            number = self._signatures.index(stamp.signature) if stamp.signature in self._signatures else None
            kind, nbytes = (FAREWELL, 0) if number is None else (stamp.signature, payload_bytes(self._kinds[number]))
            check_fields(stamp, Stamp(self._run, self._epoch, neighbor, stamp.round, line.taken, kind, nbytes))
        except FrameError as error:
            raise LostNeighborError(
                f"node {self._node} refused a letter of node {neighbor} in round {self._round}: {error}; "
                "start every node with the same experiment"
            ) from error
        line.taken += 1
        if number is None:
            line.ended = True
            if stamp.round <= self._round:
                raise self._lost(neighbor, "Receive", CLOSED, 0.0)
        else:
            self._kept.append(_Kept(neighbor, frame, stamp.round, number))

    def _next(self, deadline: float) -> _Came | None:
        """What comes next over any link; None where nothing does."""
        polled = [(j, line) for j, line in self._lines.items() if line.reader is None and not line.ended]
        nap_s, longest_s = NAPS_S if polled else (self._timeout_s, self._timeout_s)
        while True:
            for neighbor, line in polled:
                try:
                    frame = line.link.poll(self._size)
                except BrokenLinkError as error:
                    return _Came(neighbor, error)
                if frame is not None:
                    return _Came(neighbor, frame)
            try:
                return self._inbox.get(timeout=max(min(nap_s, deadline - monotonic()), 1e-5))
            except Empty:
                if monotonic() >= deadline:
                    return None
            nap_s = min(2 * nap_s, longest_s)

    def _begin(self, kinds: tuple[Payload, ...]) -> None:
        size = HEADER_BYTES + max(payload_bytes(kind) for kind in kinds)
        if self.used:
            if size > self._size or len(kinds) != len(self._kinds):
                raise RuntimeError(
                    f"node {self._node} names other kinds of letters than before; all of a run are alike"
                )
            self._kinds = kinds
            return
        for neighbor, line in self._lines.items():
            if not line.link.letters:
                raise MissingEnvironmentError(
                    f"nodes {self._node} and {neighbor} are linked by {line.link.name}, which carries no letters of a "
                    "token method; use transport: gloo"
                )
        self._kinds, self._size, self._signatures = kinds, size, [signature(kind) for kind in kinds]
        for neighbor, line in self._lines.items():
            if not line.link.polled:
                name = f"letters-{self._node}-{neighbor}"
                line.reader = Thread(target=self._read, args=(neighbor, line.link), name=name, daemon=True)
                line.reader.start()

    def _read(self, neighbor: int, link: Link) -> None:
        """A reader's work: until the farewell, or until the link breaks."""
        try:
            while True:
                frame = link.next(self._size)
                last = is_farewell(frame)
                self._inbox.put(_Came(neighbor, frame))
                if last:
                    return
        except BrokenLinkError as error:
            self._inbox.put(_Came(neighbor, error))

    def _close_open(self) -> None:
        if self._open is not None:
            link, frame = self._open
            link.release(frame)
            self._open = None

    def _lost(self, neighbor: int, kind: str, how: str, waited_s: float) -> LostNeighborError:
        where = f"node {neighbor} in round {self._round}"
        name = self._lines[neighbor].link.name
        if how == NO_ANSWER:
            return LostNeighborError(f"node {self._node} waited {waited_s:.1f} s for {where} ({kind}, {name})")
        return LostNeighborError(f"node {self._node} lost {where} after {waited_s:.1f} s: {how} ({kind}, {name})")

    def _names(self) -> str:
        return ", ".join(sorted({line.link.name for line in self._lines.values()}))

    def close(self, in_peace: bool) -> None:
        """Say farewell to all neighbors, and end the readers once they have said theirs."""
        if not self.used:
            return
        deadline = monotonic() + (self._timeout_s if in_peace else HURRY_S)
        for line in self._lines.values():
            _quietly(partial(self._put, line, (), FAREWELL, self._round + 1 if in_peace else 0))
        for line in self._lines.values():
            while line.under_way and _quietly(partial(self._finish, line, max(deadline - monotonic(), 0.01))):
                pass
            if line.reader is not None:
                line.reader.join(max(deadline - monotonic(), 0.01))
            elif in_peace:
                self._poll_to_the_end(line, deadline)

    def _poll_to_the_end(self, line: _Line, deadline: float) -> None:
        """Take the farewell of a link that has no reader."""
        nap_s, longest_s = NAPS_S
        while not line.ended and monotonic() < deadline:
            try:
                frame = line.link.poll(self._size)
            except BrokenLinkError:
                return
            if frame is None:
                sleep(nap_s)
                nap_s = min(2 * nap_s, longest_s)
            else:
                line.ended = is_farewell(frame)


def is_farewell(frame: Tensor) -> bool:
    """Whether a frame is the last of its link."""
    try:
        return read_header(frame[:HEADER_BYTES].numpy().tobytes()).signature == FAREWELL
    except FrameError:
        return False


def _quietly(work: Callable[[], None]) -> bool:
    """Do something that a broken link may prevent; whether it did not."""
    try:
        work()
    except BrokenLinkError:
        return False
    return True

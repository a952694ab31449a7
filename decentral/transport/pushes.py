"""What a node pushes and what is pushed to it, over its links: the newest, without waiting for anybody.

A push copies its payload into a free frame and puts that into a place for each neighbor, which a thread empties; on the
other side threads read the links and put what comes into places of their own, into which the node looks (`outgoing`,
`mailbox`). Where a link has a window (`windows`) the place is there, and the threads carry the farewell alone. Frames
say their sender's step. Whoever leaves says farewell on each link behind the last that it has pushed, which ends the
reading at the other end: in peace with round 1, otherwise with round 0.
"""

from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from time import monotonic
from typing import NamedTuple
from zlib import crc32

from torch import Tensor

from decentral.errors import LostNeighborError, MissingEnvironmentError
from decentral.peer import Arrival, Payload, Poll, Push
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
from decentral.transport.inbox import FAREWELL, HURRY_S, LOOKS_S, NAPS_S, Came, Readers
from decentral.transport.links import CLOSED, NO_ANSWER, BrokenLinkError, Outbox
from decentral.transport.mailbox import Mailbox, Parcel
from decentral.transport.outgoing import Frame, Line, Mover, Senders
from decentral.transport.windows import Windows
from decentral.transport.wiring import Wires

_ADDS = crc32(b"adds")


class _Opened(NamedTuple):
    """What there is from the first push or poll on."""

    mailbox: Mailbox
    readers: Readers
    senders: Senders
    mover: Mover | None
    windows: Windows


class Pushes:
    """All that one node pushes, and all that is pushed to it.

    Args:
        node: this one.
        wires: the links to its neighbors in the graph.
        run: 64-bit digest of the experiment; both ends of a link must have the same.
        epoch: incarnation of the links.
        timeout_s: how long a neighbor may take nothing, and how long to wait where something is waited for.
        bytes_sent: the driver's count, by node.
        clock: seconds since the run began.
    """

    def __init__(
        self,
        node: int,
        wires: Wires,
        run: int,
        epoch: int,
        timeout_s: float,
        bytes_sent: dict[int, int],
        clock: Callable[[], float],
    ) -> None:
        self._node, self._run, self._epoch, self._timeout_s = node, run, epoch, timeout_s
        self._bytes_sent, self._counted, self._clock = bytes_sent, 0, clock
        self._lines = {j: Line(j, link, bundle.outbox) for bundle in wires.bundles for j, link in bundle.links.items()}
        self._open: _Opened | None = None
        self._like: Payload = ()
        self._signature = self._nbytes = 0
        self._number = 0  # of pushes
        self._heard = dict.fromkeys(self._lines, 0)  # numbers of what came last
        self._read = dict.fromkeys(self._lines, 0)  # frames that have come
        self._waits = False
        self._broken: dict[int, str] = {}
        self._left: set[int] = set()  # neighbors that have said farewell in peace

    @property
    def used(self) -> bool:
        """Whether the node has pushed or polled."""
        return self._open is not None

    @property
    def made(self) -> int:
        """Frames that have left the node, or are about to."""
        return sum(line.made for line in self._lines.values())

    @property
    def read(self) -> int:
        """Frames that have come to the node."""
        read = sum(self._read.values())  # first: what is taken meanwhile must not count twice
        return read + (self._open.windows.fresh if self._open else 0)

    @property
    def is_waiting(self) -> bool:
        """Whether the node waits for something, with nothing there."""
        opened = self._open
        return opened is not None and opened.mailbox.is_empty() and not opened.windows.fresh and self._waits

    def push(self, asked: Push) -> None:
        """Put a payload into the place for each receiver; what the neighbor takes is on its way when this returns.

        Raises:
            LostNeighborError: a neighbor is gone, or takes nothing.
            MissingEnvironmentError: a link that nothing can be pushed over.
            RuntimeError: the payload is not like what the first one was, or the node has no link to a receiver.
        """
        windows = self._opened(asked.like).windows
        self.check("Push")
        self._number += 1
        kind = self._signature ^ (_ADDS if asked.adds else 0)
        stamp = self._stamp(asked.step + 1, kind, self._nbytes)
        groups: dict[tuple[int, int], list[Line]] = {}
        for receiver, payload in asked.to.items():
            if (line := self._lines.get(receiver)) is None:
                raise RuntimeError(f"node {self._node} has no link to node {receiver}, which it pushes to")
            if signature(payload) != self._signature:  # a longer one would end the receiving process
                raise RuntimeError(f"node {self._node} pushed something of another shape or dtype than at first")
            if receiver in self._left:
                continue
            if (window := windows.to(receiver)) is not None:
                line.made += 1  # first: who counts must not find it read before it was made
                line.made -= window.write(stamp, payload, asked.adds)
            elif not (asked.adds and self._add(line, stamp, payload)):
                groups.setdefault((id(payload), id(line.outbox)), []).append(line)
        for lines in groups.values():
            payload = asked.to[lines[0].neighbor]
            frame = self._filled(lines[0].outbox, stamp, payload, len(lines))
            for line in lines:
                line.replace(frame)

    def _filled(self, outbox: Outbox, stamp: Stamp, payload: Payload, links: int) -> Frame:
        memory = outbox.take(stamp.frame_bytes)
        outbox.fill(memory, stamp, payload)
        return Frame(outbox, memory, links)

    def _add(self, line: Line, stamp: Stamp, payload: Payload) -> bool:
        """Put the sum of a payload and what has not left yet into its place; whether there was something."""
        if (earlier := line.place.swap(None)) is None:
            return False
        frame = self._filled(line.outbox, stamp, payload, 1)
        views = (payload_views(each.memory, payload) for each in (frame, earlier))
        for total, other in zip(*views, strict=True):
            total.add_(other)
        earlier.drop()
        line.made -= 1
        line.replace(frame)
        return True

    def _stamp(self, round: int, kind: int, nbytes: int) -> Stamp:
        return Stamp(self._run, self._epoch, self._node, round, self._number, kind, nbytes)

    def poll(
        self, asked: Poll, is_over: Callable[[], bool] = lambda: False, timeout_s: float | None = None
    ) -> Mapping[int, Arrival]:
        """What has come since the node last looked.

        Args:
            is_over: whether a node that waits is to wait no more.
            timeout_s: how long it waits at most.

        Raises:
            LostNeighborError: a neighbor is gone, sent something else, or nothing came in time.
            MissingEnvironmentError: a link that nothing can be pushed over.
        """
        opened, began = self._opened(asked.like), monotonic()
        mailbox = opened.mailbox
        nap_s, longest_s = (
            NAPS_S if opened.windows else (LOOKS_S, LOOKS_S)
        )  # nobody rings for what is pushed through a window
        most_s = self._timeout_s if timeout_s is None else timeout_s
        while True:
            self.check("Poll")
            self._waits = False
            all_left = self._left.issuperset(self._lines)  # before looking: what they pushed last is there
            self._look_into(opened)
            taken = mailbox.take()
            self._waits = asked.wait and not taken
            if taken or not asked.wait or is_over():
                return taken
            waited_s = monotonic() - began
            if waited_s >= most_s or (most_s < inf and all_left):
                why = CLOSED if waited_s < most_s else NO_ANSWER
                raise LostNeighborError(
                    f"node {self._node} waited {waited_s:.1f} s for what any of its neighbors pushes: {why} (Poll, "
                    f"{self._names()}); raise transport.timeout_s where a step takes longer"
                )
            mailbox.wait(min(nap_s, most_s - waited_s))
            nap_s = min(2 * nap_s, longest_s)

    def _look_into(self, opened: _Opened) -> None:
        """Put what has come through windows where all else comes."""
        for neighbor, found in opened.windows.take():
            self._came(opened.mailbox, Came(neighbor, found.frame), found.age_s, lent=False)

    def wake(self) -> None:
        """Let a node that waits look whether it still should."""
        if self._open is not None:
            self._open.mailbox.ring()

    def drop(self) -> None:
        """What has come goes, and the node waits for nothing."""
        self._waits = False
        if self._open is not None:
            self._look_into(self._open)
            self._open.mailbox.drop()

    def check(self, kind: str) -> None:
        """Count what has been sent, and find out whether all neighbors are there.

        Raises:
            LostNeighborError: one is gone, takes nothing, or sent something else.
        """
        self._count()
        for neighbor, how in sorted(self._broken.items()):
            whom = f"node {neighbor}"
            name = self._lines[neighbor].link.name
            if how == NO_ANSWER:
                waited = f"node {self._node} waited {self._timeout_s:.1f} s for {whom} to take what it was pushed"
                raise LostNeighborError(f"{waited} ({kind}, {name})")
            raise LostNeighborError(f"node {self._node} lost {whom}: {how} ({kind}, {name})")

    def _count(self) -> None:
        """Take over the threads' counts of bytes."""
        sent_bytes = sum(line.sent_bytes for line in self._lines.values())
        sent_bytes += self._open.windows.sent_bytes if self._open else 0
        self._bytes_sent[self._node] += sent_bytes - self._counted
        self._counted = sent_bytes

    def _names(self) -> str:
        return ", ".join(sorted({line.link.name for line in self._lines.values()}))

    def _opened(self, like: Payload) -> _Opened:
        """The threads, begun at the first push or poll."""
        if self._open is not None:
            return self._open
        for neighbor, line in self._lines.items():
            if not line.link.pushes:
                raise MissingEnvironmentError(
                    f"nodes {self._node} and {neighbor} are linked by {line.link.name}, over which nothing can be "
                    "pushed without waiting; use transport: gloo"
                )
        self._like, self._signature, self._nbytes = like, signature(like), payload_bytes(like)
        node, size, polled = self._node, HEADER_BYTES + self._nbytes, [x for x in self._lines.values() if x.link.polled]
        mailbox = Mailbox(self._lines, like)
        put, broken = partial(self._came, mailbox), partial(self._is_broken, mailbox)
        readers = Readers("pushes", node, {j: line.link for j, line in self._lines.items()}, size, put)
        sleeping = [line for line in self._lines.values() if not line.link.polled]
        senders = Senders(node, sleeping, self._timeout_s, broken)
        windows = {j: window for j, line in self._lines.items() if (window := line.link.window(size)) is not None}
        longest_s = NAPS_S[1] if any(line.neighbor not in windows for line in polled) else LOOKS_S
        mover = Mover(node, polled, size, put, broken, longest_s) if polled else None
        self._open = _Opened(mailbox, readers, senders, mover, Windows(windows))
        return self._open

    def _came(self, mailbox: Mailbox, came: Came, age_s: float = 0.0, lent: bool = True) -> None:
        """What a reader does with a frame, lent by its link, or with the news that its link is broken."""
        neighbor, frame = came
        if isinstance(frame, BrokenLinkError):
            self._is_broken(mailbox, neighbor, str(frame))
            return
        try:
            stamp = read_header(frame[:HEADER_BYTES].numpy().tobytes())
            kinds = {FAREWELL: 0, self._signature: self._nbytes, self._signature ^ _ADDS: self._nbytes}
            kind = stamp.signature if stamp.signature in kinds else self._signature
            number = max(stamp.sequence, self._heard[neighbor])  # what was replaced has left numbers out
            check_fields(stamp, Stamp(self._run, self._epoch, neighbor, stamp.round, number, kind, kinds[kind]))
        except FrameError as error:
            self._is_broken(mailbox, neighbor, f"{error}; start every node with the same experiment")
            return
        if kind == FAREWELL:
            self._said_farewell(mailbox, neighbor, in_peace=stamp.round > 0)
            return
        self._heard[neighbor] = stamp.sequence + 1
        give_back = self._release(neighbor, frame) if lent else lambda: None
        parcel = Parcel(payload_views(frame, self._like), stamp.round - 1, self._clock() - age_s, give_back)
        mailbox.put(neighbor, parcel, adds=kind != self._signature)
        self._read[neighbor] += 1

    def _release(self, neighbor: int, frame: Tensor) -> Callable[[], None]:
        return partial(self._lines[neighbor].link.release, frame)

    def _said_farewell(self, mailbox: Mailbox, neighbor: int, in_peace: bool) -> None:
        if in_peace:
            self._left.add(neighbor)
            mailbox.ring()
        else:
            self._is_broken(mailbox, neighbor, CLOSED)

    def _is_broken(self, mailbox: Mailbox, neighbor: int, how: str) -> None:
        if neighbor not in self._left:
            self._broken.setdefault(neighbor, how)
        mailbox.ring()

    def close(self, in_peace: bool) -> None:
        """Say farewell to all neighbors behind what was pushed, and read on until they have said theirs."""
        if self._open is None:
            return
        deadline = monotonic() + (self._timeout_s if in_peace else HURRY_S)
        self._number += 1
        for line in self._lines.values():
            line.leave(self._filled(line.outbox, self._stamp(int(in_peace), FAREWELL, 0), (), 1))
        for thread in (self._open.senders, self._open.readers, self._open.mover):
            if thread is not None:
                thread.join(deadline)
        self._count()
        for line in self._lines.values():
            line.drop_all()
        self._open.mailbox.give_back()

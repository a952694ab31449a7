"""What a node has pushed and not sent: one place for each neighbor, which keeps the newest, and what empties it.

A link that can be slept in has a sender, a thread that waits until a frame is through before it takes the next one; so
a neighbor that takes nothing holds up nobody else, and has one frame under way at most. Links that can only be polled
(MPI moves messages in its calls alone) have one mover for all of them, a thread that polls with naps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from queue import SimpleQueue
from threading import Event, Lock, Thread
from time import monotonic, sleep

from torch import Tensor

from decentral.transport.inbox import NAPS_S, Came, is_farewell
from decentral.transport.links import NO_ANSWER, BrokenLinkError, Link, Outbox
from decentral.transport.place import Place

_NAP_S = 1e-3


class Frame:
    """An outgoing frame for some links, given back to its outbox once none of them has a use for it.

    Args:
        outbox: that it was taken from.
        memory: `(bytes,)` uint8.
        links: how many.
    """

    def __init__(self, outbox: Outbox, memory: Tensor, links: int) -> None:
        self.memory = memory
        self._outbox, self._links, self._lock = outbox, links, Lock()

    def drop(self) -> None:
        """One link has no more use for it."""
        with self._lock:
            self._links -= 1
            last = not self._links
        if last:
            self._outbox.give_back(self.memory)


@dataclass(slots=True, eq=False)
class Line:
    """The sending end of one link."""

    neighbor: int
    link: Link
    outbox: Outbox
    place: Place[Frame] = field(default_factory=Place)
    bell: SimpleQueue[None] = field(default_factory=SimpleQueue)
    farewell: Frame | None = None  # what follows the newest, and is the last
    made: int = 0  # frames that have left or are there
    sent_bytes: int = 0
    under_way: Frame | None = None

    def replace(self, frame: Frame) -> None:
        """Put a frame in the place of what has not left yet."""
        if (old := self.place.swap(frame)) is not None:
            old.drop()
        else:
            self.made += 1
        self.bell.put(None)

    def leave(self, farewell: Frame) -> None:
        """Send what is there, then this, then no more."""
        self.farewell = farewell
        self.bell.put(None)

    def next(self) -> Frame | None:
        """What is to be sent now, if anything."""
        if (frame := self.place.swap(None)) is not None:
            return frame
        frame, self.farewell = self.farewell, None
        return frame

    def drop_all(self) -> None:
        """Nothing will be sent any more."""
        for frame in (self.place.swap(None), self.farewell):
            if frame is not None:
                frame.drop()
        self.farewell = None


Broken = Callable[[int, str], None]
"""Called as broken(neighbor, how) by the thread that finds a link broken."""


class Senders:
    """A thread for each of some links that can be slept in.

    Args:
        node: this one.
        lines: of these links.
        timeout_s: how long a neighbor may take nothing.
        broken: is told of a link that breaks.
    """

    def __init__(self, node: int, lines: Sequence[Line], timeout_s: float, broken: Broken) -> None:
        self._timeout_s, self._broken = timeout_s, broken
        self._threads = [
            Thread(target=self._send_all, args=(line,), name=f"pushes-to-{node}-{line.neighbor}", daemon=True)
            for line in lines
        ]
        for thread in self._threads:
            thread.start()

    def _send_all(self, line: Line) -> None:
        """A sender's work: until the farewell, or until the link breaks."""
        while True:
            line.bell.get()
            if (frame := line.next()) is None:
                continue
            last = is_farewell(frame.memory)
            try:
                self._send(line.link, frame)
            except BrokenLinkError as error:
                self._broken(line.neighbor, str(error))
                return
            finally:
                frame.drop()
            if last:
                return
            line.sent_bytes += frame.memory.numel()

    def _send(self, link: Link, frame: Frame) -> None:
        deadline = monotonic() + self._timeout_s
        while not link.has_room():
            if monotonic() > deadline:
                raise BrokenLinkError(NO_ANSWER)
            sleep(_NAP_S)
        if (wait := link.send(frame.memory)) is not None:
            wait(max(deadline - monotonic(), 1e-3))

    def join(self, deadline: float) -> None:
        """Wait until all have ended, or the deadline has passed, a time of `monotonic`."""
        for thread in self._threads:
            thread.join(max(deadline - monotonic(), 0.01))


class Mover:
    """One thread that sends and receives over all links of a node that can only be polled.

    Args:
        node: this one.
        lines: of these links.
        size: bytes of the longest frame that comes.
        put: takes what comes.
        broken: is told of a link that breaks.
        longest_s: its longest nap.
    """

    def __init__(
        self,
        node: int,
        lines: Sequence[Line],
        size: int,
        put: Callable[[Came], None],
        broken: Broken,
        longest_s: float = NAPS_S[1],
    ) -> None:
        self._longest_s = longest_s
        self._size, self._put, self._broken = size, put, broken
        self._sending, self._receiving = list(lines), list(lines)
        self._is_over = Event()
        self._thread = Thread(target=self._move, name=f"pushes-{node}", daemon=True)
        self._thread.start()

    def _move(self) -> None:
        nap_s = NAPS_S[0]
        while (self._sending or self._receiving) and not self._is_over.is_set():
            moved = [self._tried(partial(self._receive, line), line) for line in [*self._receiving]]
            moved += [self._tried(partial(self._send, line), line) for line in [*self._sending]]
            nap_s = NAPS_S[0] if any(moved) else min(2 * nap_s, self._longest_s)
            sleep(nap_s)

    def _tried(self, work: Callable[[], bool], line: Line) -> bool:
        try:
            return work()
        except BrokenLinkError as error:
            self._sending = [other for other in self._sending if other is not line]
            self._receiving = [other for other in self._receiving if other is not line]
            self._broken(line.neighbor, str(error))
            return True

    def _receive(self, line: Line) -> bool:
        frame = line.link.poll(self._size)
        if frame is None:
            return False
        if is_farewell(frame):
            self._receiving.remove(line)
        self._put(Came(line.neighbor, frame))
        return True

    def _send(self, line: Line) -> bool:
        if line.under_way is not None:
            if not line.link.is_through(line.under_way.memory):
                return False
            if is_farewell(line.under_way.memory):
                self._sending.remove(line)
            else:
                line.sent_bytes += line.under_way.memory.numel()
            line.under_way.drop()
            line.under_way = None
            return True
        if (frame := line.next()) is None:
            return False
        line.link.put(frame.memory)
        line.under_way = frame
        return True

    def join(self, deadline: float) -> None:
        """Wait until all links have ended, or the deadline has passed, a time of `monotonic`; then end the thread."""
        self._thread.join(max(deadline - monotonic(), 0.01))
        self._is_over.set()
        self._thread.join()

"""Where the letters of all links of one node come together, in the order in which they are there.

Each link has a reader, a thread that sleeps in the link until a letter is there; so a node that waits takes no time of
its core, and two that send to each other at once both find a reader at the other end. Where a link can only be polled
(MPI moves messages in its calls alone), it is polled while the node waits, with naps.
"""

from collections.abc import Callable, Mapping
from queue import Empty, Queue
from threading import Thread
from time import monotonic
from typing import NamedTuple
from zlib import crc32

from torch import Tensor

from decentral.transport.frames import HEADER_BYTES, FrameError, read_header
from decentral.transport.links import BrokenLinkError, Link

FAREWELL = crc32(b"farewell")
"""The signature of the frame without a payload that is a link's last."""

HURRY_S = 2.0
"""How long a node that failed waits for its neighbors' farewells."""
LOOKS_S = 0.05
"""How often a node that waits for something looks whether it still should."""
NAPS_S = 1e-4, 1e-3
"""The first and the longest nap between two polls of links that have no readers."""


class Came(NamedTuple):
    """What came over the link to a neighbor: a frame, or the news that nothing more will."""

    neighbor: int
    frame: Tensor | BrokenLinkError


class Readers:
    """Threads of one node, each of which sleeps in a link until a frame is there, and hands it over.

    Args:
        name: of what they read, for the threads' names.
        node: this one.
        links: by neighbor; those that can only be polled have no reader.
        size: bytes of the longest frame.
        put: takes what comes, in the thread of the link that it came over.
    """

    def __init__(self, name: str, node: int, links: Mapping[int, Link], size: int, put: Callable[[Came], None]) -> None:
        self._size, self._put = size, put
        self._threads: list[Thread] = []
        for neighbor, link in links.items():
            if not link.polled:
                called = f"{name}-{node}-{neighbor}"
                self._threads.append(Thread(target=self._read, args=(neighbor, link), name=called, daemon=True))
                self._threads[-1].start()

    def _read(self, neighbor: int, link: Link) -> None:
        """A reader's work: until the farewell, or until the link breaks."""
        try:
            while True:
                frame = link.next(self._size)
                last = is_farewell(frame)
                self._put(Came(neighbor, frame))
                if last:
                    return
        except BrokenLinkError as error:
            self._put(Came(neighbor, error))

    def join(self, deadline: float) -> None:
        """Wait until all have ended, or the deadline has passed, a time of `monotonic`."""
        for thread in self._threads:
            thread.join(max(deadline - monotonic(), 0.01))


class Inbox:
    """All links of one node, being read.

    Args:
        node: this one.
        links: by neighbor.
        size: bytes of the longest letter.
    """

    def __init__(self, node: int, links: Mapping[int, Link], size: int) -> None:
        self._size = size
        # A SimpleQueue may wait for ever when a short timeout passes within its get.
        self._came: Queue[Came | None] = Queue()
        self.broken: set[int] = set()
        """Neighbors whose link has broken, whether or not anybody has asked for what came before."""
        self._polled = {neighbor: link for neighbor, link in links.items() if link.polled}
        self._readers = Readers("letters", node, links, size, self._put)

    def _put(self, came: Came) -> None:
        if isinstance(came.frame, BrokenLinkError):
            self.broken.add(came.neighbor)
        self._came.put(came)

    def wake(self) -> None:
        """Let whoever waits in `next` go on."""
        self._came.put(None)

    def rest(self) -> None:
        """Where nothing is under way: nobody need be woken any more."""
        came = [self._came.get() for _ in range(self._came.qsize())]
        for one in came:
            if one is not None:  # that a link is broken
                self._came.put(one)

    def next(self, deadline: float) -> Came | None:
        """What comes next; None where nothing does until the deadline, a time of `monotonic`, or until it is woken."""
        nap_s = NAPS_S[0]
        while True:
            if (came := self._poll()) is not None:
                return came
            left_s = max(deadline - monotonic(), 0.0)
            try:
                return self._came.get(left_s > 0, min(nap_s, left_s) if self._polled else left_s)
            except Empty:
                if monotonic() >= deadline:
                    return None
            nap_s = min(2 * nap_s, NAPS_S[1])

    def _poll(self) -> Came | None:
        for neighbor, link in [*self._polled.items()]:
            try:
                frame = link.poll(self._size)
            except BrokenLinkError as error:
                self.broken.add(neighbor)
                del self._polled[neighbor]
                return Came(neighbor, error)
            if frame is not None:
                if is_farewell(frame):
                    del self._polled[neighbor]
                return Came(neighbor, frame)
        return None

    def drain(self, deadline: float) -> None:
        """Read on until all links have ended, or the deadline has passed."""
        while self._polled and monotonic() < deadline:
            self.next(deadline)
        self._readers.join(deadline)


def is_farewell(frame: Tensor) -> bool:
    """Whether a frame is the last of its link."""
    try:
        return read_header(frame[:HEADER_BYTES].numpy().tobytes()).signature == FAREWELL
    except FrameError:
        return False

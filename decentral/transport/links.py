"""Links: what carries frames between two neighbors. One link per edge of the graph, so one edge's fault stays its own.

A frame's memory belongs to the transport: an outgoing one is taken from the node's outbox, and one that came in is the
link's own until it is released.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from decentral.peer import Payload
from decentral.transport.frames import HEADER_BYTES, Stamp, check_header, fill
from decentral.transport.windows import Window

NO_ANSWER = "no answer"
CLOSED = "connection closed"


class BrokenLinkError(Exception):
    """A link failed; the text says how, in a few words."""


Finish = Callable[[float], Tensor | None]
"""Waits, for at most so many seconds, until what was begun is through; returns the frame that came in, `(bytes,)`
uint8, to be given back by `release`, or None where none was due. Raises BrokenLinkError: the neighbor is gone, or
stayed silent."""


Wait = Callable[[float], None]
"""Waits, for at most so many seconds, until a frame is sent. Raises BrokenLinkError as Finish does."""


class Link(ABC):
    """Carries frames to and from one neighbor, first in, first out.

    Both ends know, for each exchange, whether the link is used in it, and in which directions. Instead of exchanges a
    run's frames may be letters, which come when they come: `send`, and `next` or `poll`.
    """

    name: str
    letters: bool = True
    """Whether it carries letters."""
    polled: bool = False
    """Whether letters are polled for, since no thread can sleep until one is there."""

    @property
    def pushes(self) -> bool:
        """Whether letters may be sent and read by threads beside the node's own."""
        return self.letters

    @abstractmethod
    def start(self, outgoing: Tensor | None, incoming: int, overlapped: bool) -> Finish:
        """Begin to send a frame, to receive one, or both.

        Args:
            outgoing: `(bytes,)` uint8, of the node's outbox; None to send nothing.
            incoming: bytes of the frame to receive, which are as many as of an outgoing one; 0 to receive nothing.
            overlapped: whether the node computes in between; else it waits at once.

        Returns:
            What waits for this exchange. Exchanges may be waited for in any order, or never.

        Raises:
            BrokenLinkError: the neighbor is gone.
        """

    def check(self, frame: Tensor, expected: Stamp) -> None:
        """Compare the header of a frame that came in with what is waited for; some links do so later.

        Raises:
            FrameError: this frame, or one that came before it, is another.
        """
        check_header(frame[:HEADER_BYTES].numpy().tobytes(), expected)

    def settle(self, timeout_s: float) -> None:  # noqa: B027  most links leave nothing under way
        """Wait until all exchanges that were waited for are through and checked, where that goes on behind the host.

        Raises:
            BrokenLinkError: they were not, within `timeout_s` seconds.
            FrameError: one of the frames is another than was waited for.
        """

    def send(self, frame: Tensor) -> Wait | None:
        """Begin to send a letter: a frame of the node's outbox; None where it may be given back at once.

        Raises:
            BrokenLinkError: the neighbor is gone.
        """
        raise NotImplementedError(f"{self.name} links carry no letters")

    def next(self, size: int) -> Tensor:
        """Sleep until a letter has come, for a thread of its own; a frame as `Finish` returns it, or a longer one.

        Args:
            size: bytes of the longest letter of the run.

        Raises:
            BrokenLinkError: the neighbor is gone.
        """
        raise NotImplementedError(f"{self.name} links carry no letters")

    def poll(self, size: int) -> Tensor | None:
        """The same without waiting: None where no letter has come."""
        raise NotImplementedError(f"{self.name} links are not polled")

    def has_room(self) -> bool:
        """Whether the neighbor keeps so few of our letters that it may be sent another; where they stay with us."""
        return True

    def window(self, size: int) -> Window | None:  # noqa: ARG002
        """What frames of a size are pushed through, past the link, which then carries the farewell alone."""
        return None

    def put(self, frame: Tensor) -> None:
        """Begin to send a letter over a link that is polled; `is_through` says when that has come to its end.

        Raises:
            BrokenLinkError: the neighbor is gone.
        """
        raise NotImplementedError(f"{self.name} links are not polled")

    def is_through(self, frame: Tensor) -> bool:
        """Whether the neighbor takes in what was put, or has it already."""
        raise NotImplementedError(f"{self.name} links are not polled")

    @abstractmethod
    def release(self, frame: Tensor) -> None:
        """Take back a frame that came in: nobody reads it any more."""

    @abstractmethod
    def close(self) -> None:
        """Give the connection back; pending transfers are dropped."""


class Outbox:
    """Memory for a node's outgoing frames, which all of its links send from."""

    def __init__(self) -> None:
        self._free: dict[int, list[Tensor]] = {}  # by size

    def take(self, size: int) -> Tensor:
        """A frame of `size` bytes, uint8, of any content."""
        free = self._free.get(size)
        return free.pop() if free else self._allocated(size)

    def _allocated(self, size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.uint8)

    def fill(self, frame: Tensor, stamp: Stamp, payload: Payload) -> None:
        """Write header and payload into a frame."""
        fill(frame, stamp, payload)

    def home(self, x: Tensor) -> Tensor | None:  # noqa: ARG002
        """The frame of this outbox in which a vector lies as the only payload; None where it lies elsewhere."""
        return None

    def give_back(self, frame: Tensor) -> None:
        """The node has sent a frame to whom it would."""
        self._free.setdefault(frame.numel(), []).append(frame)

    def close(self) -> None:
        """Free the memory."""
        self._free.clear()

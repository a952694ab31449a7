"""The letters of one node over its links: sent one by one, and received from any neighbor, in whatever order they come.

A link's letters are numbered, and each says the round of its sender; one of a round that this node has not begun waits
for it. Whoever leaves says farewell on each link, which ends the reading at the other end: in peace with the round that
it would begin next, otherwise with round 0. Whoever hears a farewell in a round that its sender has not ended would
wait in vain, and is told so. A link that breaks without a farewell is a death: it ends the run, too, unless the run is
to survive; then the neighbors are told by a letter of their own, once, and what they send to the dead is dropped.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from math import inf
from time import monotonic

import torch
from torch import Tensor

from decentral.errors import LostNeighborError, MissingEnvironmentError
from decentral.peer import GONE, Letter, Payload, Receive, Send
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
from decentral.transport.inbox import FAREWELL, HURRY_S, LOOKS_S, Inbox
from decentral.transport.links import CLOSED, NO_ANSWER, BrokenLinkError, Link, Outbox, Wait
from decentral.transport.wiring import Wires

UNDER_WAY = 2
"""Letters that a link may have under way before the next one waits for the first of them."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A letter that has come and that the node has not asked for yet."""

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
    left: float = inf  # the round from which on the neighbor is no longer there
    broken: bool = False  # a letter could not be sent, since the neighbor is dead
    under_way: deque[tuple[Wait, Tensor]] = field(default_factory=deque)

    def put(self, stamp: Stamp, payload: Payload, timeout_s: float) -> None:
        """Begin to send; raises BrokenLinkError."""
        if len(self.under_way) >= UNDER_WAY:
            self.finish(timeout_s)
        frame = self.outbox.take(stamp.frame_bytes)
        self.outbox.fill(frame, stamp, payload)
        self.sent += 1
        wait = self.link.send(frame)
        if wait is None:
            self.outbox.give_back(frame)
        else:
            self.under_way.append((wait, frame))

    def finish(self, timeout_s: float) -> None:
        """Wait until the first letter under way is sent; raises BrokenLinkError."""
        wait, frame = self.under_way.popleft()
        wait(timeout_s)
        self.outbox.give_back(frame)


class Letters:
    """All letters of one node.

    Args:
        node: this one.
        wires: the links to its neighbors in the graph.
        run: 64-bit digest of the experiment; both ends of a link must have the same.
        epoch: incarnation of the links.
        timeout_s: how long to wait for a letter, and for a neighbor to take one.
        bytes_sent: the driver's count, by node.
        survive: whether the node goes on when a neighbor dies.
    """

    def __init__(
        self,
        node: int,
        wires: Wires,
        run: int,
        epoch: int,
        timeout_s: float,
        bytes_sent: dict[int, int],
        survive: bool = False,
    ) -> None:
        self._node, self._run, self._epoch, self._timeout_s = node, run, epoch, timeout_s
        self._survive = survive
        self._bytes_sent = bytes_sent
        self._lines = {j: _Line(link, bundle.outbox) for bundle in wires.bundles for j, link in bundle.links.items()}
        self._inbox: Inbox | None = None  # from the first letter on
        self._kept: deque[_Kept] = deque()
        self._looked_at: tuple[Link, Tensor] | None = None  # the last letter's frame
        self._kinds: tuple[Payload, ...] = ()
        self._signatures: list[int] = []  # of the kinds
        self._round = 0
        self._is_free = False
        self.read = 0  # letters that the node has been given
        self.is_waiting = False  # for a letter, with none there

    @property
    def made(self) -> int:
        """Letters that the node has sent."""
        return sum(line.sent for line in self._lines.values())

    def throw_away(self) -> None:
        """All letters that have come, where the node reads none any more."""
        if self._inbox is not None:
            while self.receive(Receive(self._kinds, wait=False)) is not None:
                pass

    def wake(self) -> None:
        """Let a node that waits look whether it still should."""
        if self._inbox is not None:
            self._inbox.wake()

    def rest(self) -> None:
        """The node waits for nothing, and nothing is under way."""
        self.is_waiting = False
        if self._inbox is not None:
            self._inbox.rest()

    @property
    def used(self) -> bool:
        """Whether the node has sent or waited for a letter."""
        return self._inbox is not None

    @property
    def dead(self) -> set[int]:
        """The neighbors that are known to be dead; nothing is known before the first letter."""
        return set() if self._inbox is None else self._inbox.broken.copy()

    def begin_round(self, round: int) -> None:
        """Letters of this round may be looked at from now on."""
        self._round = round

    def begin_free_run(self) -> None:
        """From now on nodes have no rounds in common: letters of any may be looked at."""
        self._is_free = True

    def end_round(self) -> None:
        """The node looks at no letter any more."""
        if self._looked_at is not None:
            link, frame = self._looked_at
            link.release(frame)
            self._looked_at = None

    def send(self, asked: Send) -> None:
        """Send a letter; it may still be on its way when this returns. One to the dead is dropped, if we survive them.

        Raises:
            LostNeighborError: the neighbor is gone, or takes none.
            MissingEnvironmentError: a link that carries no letters.
            RuntimeError: the payload is of none of the kinds, or the node has no link to this one.
        """
        self._opened(asked.kinds)
        if (kind := signature(asked.payload)) not in self._signatures:  # a longer one would end the receiving process
            raise RuntimeError(f"node {self._node} sent a letter of another kind than it named with its first one")
        if (line := self._lines.get(asked.to)) is None:
            raise RuntimeError(f"node {self._node} has no link to node {asked.to}, which it sends a letter to")
        began, stamp = monotonic(), self._stamp(line, kind, self._round, payload_bytes(asked.payload))
        if line.broken:
            return
        try:
            line.put(stamp, asked.payload, self._timeout_s)
        except BrokenLinkError as error:
            if self._survived(error):
                line.broken = True
                return
            raise self._lost(asked.to, "Send", str(error), monotonic() - began) from error
        self._bytes_sent[self._node] += stamp.frame_bytes

    def _survived(self, error: BrokenLinkError) -> bool:
        return self._survive and str(error) == CLOSED

    def _stamp(self, line: _Line, kind: int, round: int, nbytes: int) -> Stamp:
        return Stamp(self._run, self._epoch, self._node, round, line.sent, kind, nbytes)

    def receive(
        self,
        asked: Receive,
        is_over: Callable[[], bool] = lambda: False,
        timeout_s: float | None = None,
        patience_s: float = inf,
    ) -> Letter | None:
        """The next letter of this round or an earlier one, or the news of a death; the last one is closed.

        None where none is waited for.

        Args:
            is_over: whether a node that waits is to wait no more.
            timeout_s: after how long none has come that must come.
            patience_s: how long it waits where none need come.

        Raises:
            LostNeighborError: a neighbor is gone, none sent anything in time, or one sent something else.
            MissingEnvironmentError: a link that carries no letters.
        """
        inbox, began = self._opened(asked.kinds), monotonic()
        until = began + patience_s
        deadline = began + (self._timeout_s if timeout_s is None else timeout_s) if until == inf else inf
        self.end_round()
        while (kept := self._due()) is None:
            self.is_waiting = asked.wait
            for neighbor, line in self._lines.items():
                if line.left <= self._round:
                    raise self._lost(neighbor, "Receive", CLOSED, monotonic() - began)
            came = inbox.next(min(deadline, until, monotonic() + LOOKS_S) if asked.wait else monotonic())
            if came is None and (not asked.wait or is_over() or monotonic() >= until):
                return None
            if came is None:
                if monotonic() < deadline:
                    continue
                raise LostNeighborError(
                    f"node {self._node} waited {self._timeout_s:.1f} s for a letter of any of its neighbors in round "
                    f"{self._round} (Receive, {self._names()}); raise transport.timeout_s where a round takes longer"
                )
            if isinstance(came.frame, BrokenLinkError):
                if self._survived(came.frame):
                    self._keep_news(came.neighbor)
                    continue
                raise self._lost(came.neighbor, "Receive", str(came.frame), monotonic() - began)
            self._sort(came.neighbor, came.frame, asked.kinds)
        self.is_waiting = False
        self.read += 1
        if kept.kind == GONE:
            return Letter(kept.neighbor, GONE, ())
        like = asked.kinds[kept.kind]
        self._looked_at = self._lines[kept.neighbor].link, kept.frame
        views = payload_views(kept.frame, like)
        return Letter(kept.neighbor, kept.kind, tuple(v.to(t.device) for v, t in zip(views, like, strict=True)))

    def _keep_news(self, dead: int) -> None:
        """A neighbor is dead: the node hears so after that one's last letter."""
        last = max((kept.round for kept in self._kept if kept.neighbor == dead), default=self._round)
        self._kept.append(_Kept(dead, torch.empty(0, dtype=torch.uint8), last, GONE))

    def _due(self) -> _Kept | None:
        for kept in self._kept:
            if self._is_free or kept.round <= self._round:
                self._kept.remove(kept)
                return kept
        return None

    def _sort(self, neighbor: int, frame: Tensor, kinds: tuple[Payload, ...]) -> None:
        """Keep a letter until it is due; take note of a farewell."""
        line = self._lines[neighbor]
        try:
            stamp = read_header(frame[:HEADER_BYTES].numpy().tobytes())
            number = self._signatures.index(stamp.signature) if stamp.signature in self._signatures else None
            kind, nbytes = (FAREWELL, 0) if number is None else (stamp.signature, payload_bytes(kinds[number]))
            check_fields(stamp, Stamp(self._run, self._epoch, neighbor, stamp.round, line.taken, kind, nbytes))
        except FrameError as error:
            raise LostNeighborError(
                f"node {self._node} refused a letter of node {neighbor} in round {self._round}: {error}; "
                "start every node with the same experiment"
            ) from error
        line.taken += 1
        if number is not None:
            self._kept.append(_Kept(neighbor, frame, stamp.round, number))
        else:
            line.left = inf if self._is_free and stamp.round else stamp.round

    def _opened(self, kinds: tuple[Payload, ...]) -> Inbox:
        """The inbox, made at the first letter."""
        if self._inbox is not None:
            return self._inbox
        for neighbor, line in self._lines.items():
            if not line.link.letters:
                raise MissingEnvironmentError(
                    f"nodes {self._node} and {neighbor} are linked by {line.link.name}, which carries no letters of a "
                    "token method; use transport: gloo, or a method that needs none: route: seeded in `algorithm:`"
                )
        self._kinds = kinds
        self._signatures = [signature(kind) for kind in kinds]
        size = HEADER_BYTES + max(payload_bytes(kind) for kind in kinds)
        self._inbox = Inbox(self._node, {neighbor: line.link for neighbor, line in self._lines.items()}, size)
        return self._inbox

    def _lost(self, neighbor: int, kind: str, how: str, waited_s: float) -> LostNeighborError:
        where = f"node {neighbor} in round {self._round}"
        name = self._lines[neighbor].link.name
        if how == NO_ANSWER:
            return LostNeighborError(f"node {self._node} waited {waited_s:.1f} s for {where} ({kind}, {name})")
        return LostNeighborError(f"node {self._node} lost {where} after {waited_s:.1f} s: {how} ({kind}, {name})")

    def _names(self) -> str:
        return ", ".join(sorted({line.link.name for line in self._lines.values()}))

    def close(self, in_peace: bool) -> None:
        """Say farewell to all neighbors, and read on until they have said theirs.

        Where the run survives deaths, one that wrote no letter says it, too: else it would count as dead.
        """
        if self._inbox is None and not self._survive:
            return
        deadline = monotonic() + (self._timeout_s if in_peace and self.used else HURRY_S)
        for line in self._lines.values():
            stamp = self._stamp(line, FAREWELL, self._round + 1 if in_peace else 0, 0)
            _quietly(partial(line.put, stamp, (), max(deadline - monotonic(), 0.01)))
        for line in self._lines.values():
            while line.under_way and _quietly(partial(line.finish, max(deadline - monotonic(), 0.01))):
                pass
        if self._inbox is not None:
            self._inbox.drain(deadline)


def _quietly(work: Callable[[], None]) -> bool:
    """Do something that a broken link may prevent; whether it did not."""
    try:
        work()
    except BrokenLinkError:
        return False
    return True

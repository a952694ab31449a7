"""The exchanges of one node in one real process, over the links to its neighbors: frames out, frames in."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import NamedTuple

from torch import Tensor

from decentral.errors import LostNeighborError
from decentral.peer import Messages, Mix, Payload, Ticket, first_tensors, weighted_sum
from decentral.transport.driver import check_alike, check_untouched, copied_views, versions
from decentral.transport.frames import HEADER_BYTES, FrameError, Stamp, payload_bytes, payload_views, signature
from decentral.transport.links import NO_ANSWER, BrokenLinkError, Finish, Link, Outbox
from decentral.transport.shared import SharedOutbox
from decentral.transport.staging import Staging
from decentral.transport.wiring import Bundle, Wires


class _Outgoing(NamedTuple):
    """A frame that some links send, and what is in it."""

    outbox: Outbox
    frame: Tensor
    payload: Payload
    versions: tuple[int, ...]


@dataclass(slots=True)
class _Posted:
    messages: Messages
    stamp: Stamp
    moves: bool  # the payload is a vector that has other memory before it changes: it may be sent from where it lies
    outgoing: list[_Outgoing] = field(default_factory=list)  # one for each payload and each kind of memory
    unsent: tuple[tuple[int, ...], Payload] | None = None  # where nobody is sent to: versions, and copies of views
    begun: dict[int, Finish] = field(default_factory=dict)  # by neighbor, what waits until its link is through


class Exchanges:
    """All exchanges of one node.

    Args:
        node: this one.
        wires: the links to its neighbors in the graph.
        run: 64-bit digest of the experiment; both ends of a link must have the same.
        epoch: incarnation of the links.
        timeout_s: how long to wait for the neighbors of one exchange.
        bytes_sent: the driver's count, by node.
    """

    def __init__(
        self, node: int, wires: Wires, run: int, epoch: int, timeout_s: float, bytes_sent: dict[int, int]
    ) -> None:
        self.links = wires.links
        self._node, self._wires = node, wires
        self._run, self._epoch = run, epoch
        self._timeout_s = timeout_s
        self._bytes_sent = bytes_sent
        self._staging = Staging()
        self._round = 0
        self._sequence = 0  # exchanges begun in this round
        self._posted: dict[Ticket, _Posted] = {}
        self._tickets = 0
        self._sent: list[_Outgoing] = []  # frames of this round's exchanges that are through
        self._lent: list[tuple[Link, Tensor]] = []  # frames that came in, whose payloads the step may still read

    @property
    def begun(self) -> bool:
        """Whether there was one in this run."""
        return self._tickets > 0

    def begin_round(self, round: int) -> None:
        """Number the exchanges of a round from 0."""
        self._round, self._sequence = round, 0

    def end_round(self) -> None:
        """Reuse the memory of what the round's step was lent."""
        for link, frame in self._lent:
            link.release(frame)
        for sent in self._sent:
            sent.outbox.give_back(sent.frame)
        self._lent.clear()
        self._sent.clear()

    def post(self, messages: Messages, overlapped: bool, moves: bool = False) -> Ticket:
        """Begin an exchange.

        Args:
            messages: what is sent to whom, and from whom something comes.
            overlapped: whether the node computes before it collects.
            moves: the one payload is a vector that has other memory before it changes, so it may be sent from where it
                lies.

        Raises:
            LostNeighborError: a neighbor is gone.
            RuntimeError: the payloads differ in shape or dtype, or a node has no link to this one.
        """
        self._tickets += 1
        ticket = Ticket(self._tickets)
        for receiver, payload in messages.to.items():
            check_alike(payload, messages.like, self._node, receiver)
        self._posted[ticket] = posted = _Posted(messages, self._stamp(messages.like), moves)
        if not messages.to:
            posted.unsent = versions(messages.like), copied_views(messages.like)
        for bundle in self._wires.bundles:
            self._begin(bundle, posted, overlapped)
        if strangers := {*messages.to, *messages.sources} - posted.begun.keys():
            raise RuntimeError(
                f"node {self._node} has no link to node {min(strangers)}, which it sends to or receives from"
            )
        self._bytes_sent[self._node] += len(messages.to) * posted.stamp.frame_bytes
        self._sequence += 1
        return ticket

    def _begin(self, bundle: Bundle, posted: _Posted, overlapped: bool) -> None:
        """Begin what a bundle's links carry of an exchange, in their order, which some of them depend on."""
        to, sources, size = posted.messages.to, {*posted.messages.sources}, posted.stamp.frame_bytes
        frames: dict[int, Tensor] = {}  # by payload
        for neighbor, link in bundle.links.items():
            payload = to.get(neighbor)
            if payload is None and neighbor not in sources:
                continue
            if payload is not None and id(payload) not in frames:
                frames[id(payload)] = self._framed(payload, bundle.outbox, posted)
            frame, began = None if payload is None else frames[id(payload)], monotonic()
            try:
                posted.begun[neighbor] = link.start(frame, size if neighbor in sources else 0, overlapped)
            except BrokenLinkError as error:
                raise self._lost(neighbor, "Post", size, monotonic() - began, str(error)) from error

    def _framed(self, payload: Payload, outbox: Outbox, posted: _Posted) -> Tensor:
        frame = outbox.home(payload[0]) if posted.moves else None
        if frame is None:
            frame = outbox.take(posted.stamp.frame_bytes)
        posted.outgoing.append(_Outgoing(outbox, frame, payload, versions(payload)))
        self._staging.prepare(frame, payload)
        outbox.fill(frame, posted.stamp, payload)
        return frame

    def collect(self, ticket: Ticket, kind: str) -> Mapping[int, Payload]:
        """Finish an exchange: what came, by sender.

        Args:
            ticket: that `post` returned.
            kind: of the effect, for messages.

        Raises:
            LostNeighborError: a neighbor is gone, stayed silent, or sent something else.
            RuntimeError: what was posted has changed since.
        """
        posted = self._posted[ticket]  # kept if a neighbor is lost: the others' frames may still be on their way
        like, deadline = posted.messages.like, monotonic() + self._timeout_s
        received = {}
        for neighbor in sorted(posted.begun):
            if (frame := self._arrived(neighbor, posted, kind, deadline)) is not None:
                self._staging.prepare(frame, like)
                received[neighbor] = self._staging.landed(payload_views(frame, like), like)
        if posted.unsent is not None:
            before, copy = posted.unsent
            check_untouched(like, before, self._node, copy)
        for outgoing in posted.outgoing:
            sent = payload_views(outgoing.frame, outgoing.payload)
            check_untouched(outgoing.payload, outgoing.versions, self._node, sent)
        del self._posted[ticket]
        self._sent += posted.outgoing
        return received

    def mix(self, asked: Mix) -> None:
        """Exchange a vector and put the weighted sum in its place; raises what `post` and `collect` raise."""
        x, row = asked.x, asked.row
        messages = Messages.alike((x,), row.to, row.sources)
        received = self.collect(self.post(messages, overlapped=False, moves=True), "Mix")
        if not row.to and not received and row.weights[self._node] == 1:
            return
        vectors, weights = first_tensors(self._node, x, received), row.weights
        # Neighbors may read x in its frame for a while: the sum goes to another one, which x lies in from then on.
        room = self._room(x) if row.to else None
        if room is None:
            weighted_sum(weights, vectors, out=x)
        else:
            x.set_(weighted_sum(weights, vectors, out=room))  # type: ignore[call-overload]

    def _room(self, x: Tensor) -> Tensor | None:
        """Memory for a vector like x, `(d,)`, that all neighbors can read where it is; None where they cannot."""
        # A view would leave the vector that it is a part of.
        if len(self._wires.bundles) != 1 or x.device.type != "cpu" or x._is_view():
            return None
        (bundle,) = self._wires.bundles
        if not isinstance(bundle.outbox, SharedOutbox):
            return None
        return payload_views(bundle.outbox.take(HEADER_BYTES + payload_bytes((x,))), (x,))[0]

    def _arrived(self, neighbor: int, posted: _Posted, kind: str, deadline: float) -> Tensor | None:
        """The frame of a neighbor, None if none is due, once all of this exchange with it is through."""
        link = self.links[neighbor]
        try:
            frame = posted.begun[neighbor](deadline - monotonic())
            if frame is not None:
                self._lent.append((link, frame))
                link.check(frame, posted.stamp._replace(sender=neighbor))
        except BrokenLinkError as error:
            waited_s = self._timeout_s - (deadline - monotonic())
            raise self._lost(neighbor, kind, posted.stamp.frame_bytes, waited_s, str(error)) from error
        except FrameError as error:
            raise self._refused(neighbor, error) from error
        return frame

    def _refused(self, neighbor: int, error: FrameError) -> LostNeighborError:
        return LostNeighborError(
            f"node {self._node} refused a message of node {neighbor} in round {self._round}: {error}; "
            "start every node with the same experiment"
        )

    def settle(self) -> None:
        """Wait until all that was collected is through and checked.

        Raises:
            LostNeighborError: a neighbor did not come in time, or sent something else.
        """
        deadline = monotonic() + self._timeout_s
        for neighbor, link in self.links.items():
            try:
                link.settle(deadline - monotonic())
            except BrokenLinkError as error:
                waited_s = self._timeout_s - (deadline - monotonic())
                raise self._lost(neighbor, "evaluation", 0, waited_s, str(error)) from error
            except FrameError as error:
                raise self._refused(neighbor, error) from error

    def _lost(self, neighbor: int, kind: str, nbytes: int, waited_s: float, how: str) -> LostNeighborError:
        message = f"({kind}, {human_bytes(nbytes)}, {self.links[neighbor].name})"
        where = f"node {neighbor} in round {self._round}"
        if how == NO_ANSWER:
            return LostNeighborError(f"node {self._node} waited {waited_s:.1f} s for {where} {message}")
        return LostNeighborError(f"node {self._node} lost {where} after {waited_s:.1f} s: {how} {message}")

    def _stamp(self, payload: Payload) -> Stamp:
        nbytes = payload_bytes(payload)
        return Stamp(self._run, self._epoch, self._node, self._round, self._sequence, signature(payload), nbytes)

    def close(self) -> None:
        """Give back links and memory."""
        self._staging.close()
        self._wires.close()
        self._posted.clear()


def human_bytes(nbytes: int) -> str:
    """In MB or kB."""
    return f"{nbytes / 1e6:.1f} MB" if nbytes >= 1e5 else f"{nbytes / 1e3:.1f} kB"

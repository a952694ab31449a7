"""The rank driver: one node in one real process, its effects performed over links to its neighbors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from decentral.errors import LostNeighborError
from decentral.peer import (
    AllReduce,
    Collect,
    Effect,
    Exchange,
    Gradient,
    Messages,
    Mix,
    Payload,
    Post,
    Ticket,
    first_tensors,
    weighted_sum,
)
from decentral.transport.driver import (
    Driver,
    Finished,
    GradientAt,
    Step,
    all_reduce_bytes,
    check_alike,
    check_untouched,
    members,
    proceed,
    versions,
)
from decentral.transport.everyone import Circle, Everyone
from decentral.transport.frames import (
    HEADER_BYTES,
    FrameError,
    Stamp,
    payload_bytes,
    payload_views,
    signature,
)
from decentral.transport.links import NO_ANSWER, BrokenLinkError, Finish, Link, Outbox
from decentral.transport.shared import SharedOutbox
from decentral.transport.staging import Staging
from decentral.transport.wiring import Bundle, Wires

T = TypeVar("T")


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
    begun: dict[int, Finish] = field(default_factory=dict)  # by neighbor, what waits until its link is through


class RankDriver(Driver):
    """Hosts one node.

    Args:
        node: the node, and rank, of this process.
        nodes: how many there are.
        wires: the links to its neighbors in the graph.
        gradient: the node's answer to `Gradient`.
        everyone: all ranks together, for AllReduce and for measurement.
        run: 64-bit digest of the experiment; both ends of a link must have the same.
        epoch: incarnation of the links.
        timeout_s: how long to wait for the neighbors of one exchange.
        circle: the ranks of some nodes together, made when they first need it; all of them unless given.
    """

    def __init__(
        self,
        node: int,
        nodes: int,
        wires: Wires,
        gradient: GradientAt,
        everyone: Everyone,
        run: int,
        epoch: int,
        timeout_s: float,
        circle: Callable[[tuple[int, ...]], Circle] | None = None,
    ) -> None:
        self.hosted = (node,)
        self.bytes_sent = {node: 0}
        self._node, self._nodes = node, nodes
        self._wires, self._links = wires, wires.links
        self._gradient = gradient
        self._everyone, self._all = everyone, tuple(range(nodes))
        self._circle = circle or (lambda _: everyone)
        self._circles: dict[tuple[int, ...], Circle] = {}
        self._staging = Staging()
        self._sums: list[Tensor] = []  # one for each AllReduce of a round
        self._reduced = 0  # in this round
        self._run, self._epoch = run, epoch
        self._timeout_s = timeout_s
        self._round = 0
        self._sequence = 0  # exchanges begun in this round
        self._posted: dict[Ticket, _Posted] = {}
        self._tickets = 0
        self._sent: list[_Outgoing] = []  # frames of this round's exchanges that are through
        self._lent: list[tuple[Link, Tensor]] = []  # frames that came in, whose payloads the step may still read

    def advance(self, steps: Mapping[int, Step], round: int) -> dict[int, Tensor]:
        step = steps[self._node]
        self.begin_round(round)
        answer: object = None
        try:
            while not isinstance(asked := proceed(step, answer), Finished):
                answer = self.perform(asked)
        finally:
            step.close()
        self.end_round()
        return {self._node: asked.loss}

    def begin_round(self, round: int) -> None:
        """Number the exchanges of a round from 0; `perform` answers its effects, `end_round` takes the answers back."""
        self._round, self._sequence, self._reduced = round, 0, 0

    def end_round(self) -> None:
        """Reuse the memory of what the round's step was lent."""
        for link, frame in self._lent:
            link.release(frame)
        for sent in self._sent:
            sent.outbox.give_back(sent.frame)
        self._lent.clear()
        self._sent.clear()

    def perform(self, asked: Effect[Any]) -> object:
        """Answer one effect of the hosted node."""
        match asked:
            case Gradient(at=at):
                return self._gradient(at)
            case Exchange(messages=messages):
                return self._collect(self._post(messages, overlapped=False), "Exchange")
            case Post(messages=messages):
                return self._post(messages, overlapped=True)
            case Collect(ticket=ticket):
                return self._collect(ticket, "Collect")
            case Mix():
                self._mix(asked)
                return None
            case AllReduce():
                return self._reduce(asked)
            case _:
                raise TypeError(f"the rank driver does not answer {type(asked).__name__}")

    def _post(self, messages: Messages, overlapped: bool, moves: bool = False) -> Ticket:
        self._tickets += 1
        ticket = Ticket(self._tickets)
        for receiver, payload in messages.to.items():
            check_alike(payload, messages.like, self._node, receiver)
        self._posted[ticket] = posted = _Posted(messages, self._stamp(messages.like), moves)
        for bundle in self._wires.bundles:
            self._begin(bundle, posted, overlapped)
        self.bytes_sent[self._node] += len(messages.to) * posted.stamp.frame_bytes
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

    def _collect(self, ticket: Ticket, kind: str) -> Mapping[int, Payload]:
        posted = self._posted[ticket]  # kept if a neighbor is lost: the others' frames may still be on their way
        like, deadline = posted.messages.like, monotonic() + self._timeout_s
        received = {}
        for neighbor in sorted(posted.begun):
            if (frame := self._arrived(neighbor, posted, kind, deadline)) is not None:
                self._staging.prepare(frame, like)
                received[neighbor] = self._staging.landed(payload_views(frame, like), like)
        for outgoing in posted.outgoing:
            sent = payload_views(outgoing.frame, outgoing.payload)
            check_untouched(outgoing.payload, outgoing.versions, self._node, sent)
        del self._posted[ticket]
        self._sent += posted.outgoing
        return received

    def _mix(self, asked: Mix) -> None:
        x, row = asked.x, asked.row
        messages = Messages.alike((x,), row.to, row.sources)
        received = self._collect(self._post(messages, overlapped=False, moves=True), "Mix")
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
        link = self._links[neighbor]
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
        deadline = monotonic() + self._timeout_s
        for neighbor, link in self._links.items():
            try:
                link.settle(deadline - monotonic())
            except BrokenLinkError as error:
                waited_s = self._timeout_s - (deadline - monotonic())
                raise self._lost(neighbor, "evaluation", 0, waited_s, str(error)) from error
            except FrameError as error:
                raise self._refused(neighbor, error) from error
        for together, circle in self._circles.items():
            self._together("evaluation", 0, circle.settle, circle, together)

    def _lost(self, neighbor: int, kind: str, nbytes: int, waited_s: float, how: str) -> LostNeighborError:
        message = f"({kind}, {_human_bytes(nbytes)}, {self._links[neighbor].name})"
        where = f"node {neighbor} in round {self._round}"
        if how == NO_ANSWER:
            return LostNeighborError(f"node {self._node} waited {waited_s:.1f} s for {where} {message}")
        return LostNeighborError(f"node {self._node} lost {where} after {waited_s:.1f} s: {how} {message}")

    def _stamp(self, payload: Payload) -> Stamp:
        nbytes = payload_bytes(payload)
        return Stamp(self._run, self._epoch, self._node, self._round, self._sequence, signature(payload), nbytes)

    def _reduce(self, asked: AllReduce) -> Tensor:
        together = members(asked, self._node, self._nodes)
        if together not in self._circles:
            self._circles[together] = self._circle(together)
        circle, out = self._circles[together], self._next_sum(asked.x, self._circles[together])
        self.bytes_sent[self._node] += all_reduce_bytes(asked.x, len(together))
        return self._mean(asked.x, "AllReduce", out, circle, together)

    def _next_sum(self, x: Tensor, circle: Circle) -> Tensor:
        memory, number = torch.device(_memory(x, circle)), self._reduced
        self._reduced += 1
        if number == len(self._sums):
            self._sums.append(torch.empty_like(x, device=memory))
        kept = self._sums[number]
        if (kept.shape, kept.dtype, kept.device) != (x.shape, x.dtype, memory):
            self._sums[number] = torch.empty_like(x, device=memory)
        return self._sums[number]

    def _mean(self, x: Tensor, kind: str, out: Tensor, circle: Circle, together: tuple[int, ...]) -> Tensor:
        out.copy_(x)
        self._together(kind, x.nbytes, partial(circle.add_up, out), circle, together)
        return out.div_(len(together)).to(x.device)

    def _together(
        self, kind: str, nbytes: int, perform: Callable[[float], T], circle: Circle, together: tuple[int, ...]
    ) -> T:
        """Perform one operation of some ranks, or all, within the timeout."""
        began = monotonic()
        try:
            return perform(self._timeout_s)
        except BrokenLinkError as error:
            whom = "all nodes" if len(together) == self._nodes else f"nodes {', '.join(map(str, together))}"
            raise LostNeighborError(
                f"node {self._node} waited {monotonic() - began:.1f} s for {whom} in round {self._round}: {error} "
                f"({kind}, {_human_bytes(nbytes)}, {circle.name})"
            ) from error

    def mean(self, vectors: Mapping[int, Tensor]) -> Tensor:
        own = vectors[self._node]
        out = torch.empty_like(own, device=_memory(own, self._everyone))
        return self._mean(own, "evaluation", out, self._everyone, self._all)

    def gather(self, values: Mapping[int, list[float]], patience_s: float = 0.0) -> list[list[float]]:
        own = torch.tensor(values[self._node], dtype=torch.float64)

        def perform(timeout_s: float) -> list[Tensor]:
            return self._everyone.gather(own, timeout_s + patience_s)

        gathered = self._together("evaluation", own.nbytes, perform, self._everyone, self._all)
        return [numbers.tolist() for numbers in gathered]

    def broadcast(self, x: Tensor, patience_s: float = 0.0) -> None:
        """Overwrite `x` with node 0's: for the start of a run."""

        def perform(timeout_s: float) -> None:
            self._everyone.broadcast(x, timeout_s + patience_s)

        self._together("start", x.nbytes, perform, self._everyone, self._all)

    def close(self) -> None:
        self._staging.close()
        self._wires.close()
        self._posted.clear()
        for circle in [*self._circles.values(), self._everyone]:
            circle.close()


def _memory(x: Tensor, circle: Circle) -> torch.device | str:
    """Where a circle adds up what is at `x`."""
    return x.device if x.device.type == circle.place else circle.place


def _human_bytes(nbytes: int) -> str:
    return f"{nbytes / 1e6:.1f} MB" if nbytes >= 1e5 else f"{nbytes / 1e3:.1f} kB"

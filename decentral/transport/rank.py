"""The rank driver: one node in one real process, its effects performed over links to its neighbors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, TypeVar

import torch
from torch import Tensor

from decentral.errors import LostNeighborError
from decentral.peer import AllReduce, Collect, Effect, Exchange, Gradient, Payload, Post, Ticket
from decentral.transport.driver import (
    Driver,
    Finished,
    GradientAt,
    Step,
    all_reduce_bytes,
    check_untouched,
    proceed,
    versions,
)
from decentral.transport.everyone import Everyone
from decentral.transport.frames import (
    HEADER_BYTES,
    FrameError,
    Stamp,
    check_header,
    fill,
    payload_bytes,
    payload_views,
    signature,
)
from decentral.transport.links import NO_ANSWER, BrokenLinkError, Finish, Link
from decentral.transport.wiring import Wires

T = TypeVar("T")


@dataclass(slots=True)
class _Posted:
    payload: Payload
    versions: tuple[int, ...]
    stamp: Stamp
    outgoing: Tensor
    incoming: dict[int, Finish]  # by neighbor, what waits for its frame


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
    ) -> None:
        self.hosted = (node,)
        self.bytes_sent = {node: 0}
        self._node, self._nodes = node, nodes
        self._wires, self._links = wires, wires.links
        self._gradient = gradient
        self._everyone = everyone
        self._sums: list[Tensor] = []  # one for each AllReduce of a round
        self._reduced = 0  # in this round
        self._run, self._epoch = run, epoch
        self._timeout_s = timeout_s
        self._round = 0
        self._sequence = 0  # exchanges begun in this round
        self._posted: dict[Ticket, _Posted] = {}
        self._tickets = 0
        self._sent: list[Tensor] = []  # frames of this round's exchanges that are through
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
        for frame in self._sent:
            self._wires.outbox.give_back(frame)
        self._lent.clear()
        self._sent.clear()

    def perform(self, asked: Effect[Any]) -> object:
        """Answer one effect of the hosted node."""
        match asked:
            case Gradient(at=at):
                return self._gradient(at)
            case Exchange(payload=payload, neighbors=neighbors):
                return self._collect(self._post(payload, neighbors, overlapped=False), "Exchange")
            case Post(payload=payload, neighbors=neighbors):
                return self._post(payload, neighbors, overlapped=True)
            case Collect(ticket=ticket):
                return self._collect(ticket, "Collect")
            case AllReduce(x=x):
                self.bytes_sent[self._node] += all_reduce_bytes(x, self._nodes)
                return self._mean(x, "AllReduce", out=self._next_sum(x))
            case _:
                raise TypeError(f"the rank driver does not answer {type(asked).__name__}")

    def _post(self, payload: Payload, neighbors: tuple[int, ...], overlapped: bool) -> Ticket:
        self._tickets += 1
        ticket = Ticket(self._tickets)
        stamp = self._stamp(payload)
        outgoing = self._wires.outbox.take(HEADER_BYTES + stamp.payload_bytes)
        fill(outgoing, stamp, payload)
        self._posted[ticket] = posted = _Posted(payload, versions(payload), stamp, outgoing, {})
        for neighbor in neighbors:
            try:
                posted.incoming[neighbor] = self._links[neighbor].start(outgoing, overlapped)
            except BrokenLinkError as error:
                raise self._lost(neighbor, "Post", outgoing.numel(), 0.0, str(error)) from error
        self.bytes_sent[self._node] += len(neighbors) * outgoing.numel()
        self._sequence += 1
        return ticket

    def _collect(self, ticket: Ticket, kind: str) -> Mapping[int, Payload]:
        posted = self._posted[ticket]  # kept if a neighbor is lost: the others' frames may still be on their way
        deadline = monotonic() + self._timeout_s
        received = {}
        for neighbor in posted.incoming:
            frame = self._arrived(neighbor, posted, kind, deadline)
            received[neighbor] = payload_views(frame, posted.payload)
        check_untouched(posted.payload, posted.versions, self._node)
        del self._posted[ticket]
        self._sent.append(posted.outgoing)
        return received

    def _arrived(self, neighbor: int, posted: _Posted, kind: str, deadline: float) -> Tensor:
        size, expected = posted.outgoing.numel(), posted.stamp._replace(sender=neighbor)
        try:
            frame = posted.incoming[neighbor](deadline - monotonic())
            self._lent.append((self._links[neighbor], frame))
            check_header(frame[:HEADER_BYTES].numpy().tobytes(), expected)
        except BrokenLinkError as error:
            waited_s = self._timeout_s - (deadline - monotonic())
            raise self._lost(neighbor, kind, size, waited_s, str(error)) from error
        except FrameError as error:
            raise LostNeighborError(
                f"node {self._node} refused a message of node {neighbor} in round {self._round}: {error}; "
                "start every node with the same experiment"
            ) from error
        return frame

    def _lost(self, neighbor: int, kind: str, nbytes: int, waited_s: float, how: str) -> LostNeighborError:
        message = f"({kind}, {_human_bytes(nbytes)}, {self._links[neighbor].name})"
        where = f"node {neighbor} in round {self._round}"
        if how == NO_ANSWER:
            return LostNeighborError(f"node {self._node} waited {waited_s:.1f} s for {where} {message}")
        return LostNeighborError(f"node {self._node} lost {where} after {waited_s:.1f} s: {how} {message}")

    def _stamp(self, payload: Payload) -> Stamp:
        nbytes = payload_bytes(payload)
        return Stamp(self._run, self._epoch, self._node, self._round, self._sequence, signature(payload), nbytes)

    def _next_sum(self, x: Tensor) -> Tensor:
        if self._reduced == len(self._sums):
            self._sums.append(torch.empty_like(x))
        self._reduced += 1
        return self._sums[self._reduced - 1]

    def _mean(self, x: Tensor, kind: str, out: Tensor) -> Tensor:
        out.copy_(x)
        self._together(kind, x.nbytes, partial(self._everyone.add_up, out))
        return out.div_(self._nodes)

    def _together(self, kind: str, nbytes: int, perform: Callable[[float], T], patience_s: float = 0.0) -> T:
        """Perform one operation of all ranks within the timeout."""
        began = monotonic()
        try:
            return perform(self._timeout_s + patience_s)
        except BrokenLinkError as error:
            raise LostNeighborError(
                f"node {self._node} waited {monotonic() - began:.1f} s for all nodes in round {self._round}: {error} "
                f"({kind}, {_human_bytes(nbytes)}, {self._everyone.name})"
            ) from error

    def mean(self, vectors: Mapping[int, Tensor]) -> Tensor:
        own = vectors[self._node]
        return self._mean(own, "evaluation", out=torch.empty_like(own))

    def gather(self, values: Mapping[int, list[float]], patience_s: float = 0.0) -> list[list[float]]:
        own = torch.tensor(values[self._node], dtype=torch.float64)
        gathered = self._together("evaluation", own.nbytes, partial(self._everyone.gather, own), patience_s)
        return [numbers.tolist() for numbers in gathered]

    def broadcast(self, x: Tensor, patience_s: float = 0.0) -> None:
        """Overwrite `x` with node 0's: for the start of a run."""
        self._together("start", x.nbytes, partial(self._everyone.broadcast, x), patience_s)

    def close(self) -> None:
        self._wires.close()
        self._posted.clear()
        self._everyone.close()


def _human_bytes(nbytes: int) -> str:
    return f"{nbytes / 1e6:.1f} MB" if nbytes >= 1e5 else f"{nbytes / 1e3:.1f} kB"

"""The rank driver: one node in one real process, its effects performed over links to its neighbors."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Any

import torch
from torch import Tensor
from torch.distributed.distributed_c10d import AllgatherOptions, AllreduceOptions, BroadcastOptions  # type: ignore[attr-defined]

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
from decentral.transport.links import NO_ANSWER, BrokenLinkError, Finish, Link, told


@dataclass(slots=True)
class _Posted:
    payload: Payload
    versions: tuple[int, ...]
    stamp: Stamp
    outgoing: Tensor
    incoming: dict[int, tuple[Tensor, Finish]]  # neighbor: the frame that it fills, and what waits for it


class RankDriver(Driver):
    """Hosts one node.

    Args:
        node: the node, and rank, of this process.
        nodes: how many there are.
        links: one to each neighbor in the graph.
        gradient: the node's answer to `Gradient`.
        group: makes the group of all ranks when first needed: for AllReduce and for measurement.
        run: 64-bit digest of the experiment; both ends of a link must have the same.
        epoch: incarnation of the links.
        timeout_s: how long to wait for the neighbors of one exchange.
    """

    def __init__(
        self,
        node: int,
        nodes: int,
        links: Mapping[int, Link],
        gradient: GradientAt,
        group: Callable[[], Any],
        run: int,
        epoch: int,
        timeout_s: float,
    ) -> None:
        self.hosted = (node,)
        self.bytes_sent = {node: 0}
        self._node, self._nodes = node, nodes
        self._links = dict(links)
        self._gradient = gradient
        self._make_group, self._group = group, None
        self._run, self._epoch = run, epoch
        self._timeout_s = timeout_s
        self._round = 0
        self._sequence = 0  # exchanges begun in this round
        self._posted: dict[Ticket, _Posted] = {}
        self._tickets = 0
        self._free: dict[int, list[Tensor]] = {}  # frames by size
        self._lent: list[Tensor] = []  # frames whose payloads the step may still read

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
        self._round, self._sequence = round, 0

    def end_round(self) -> None:
        """Reuse the memory of what the round's step was lent."""
        for frame in self._lent:
            self._free.setdefault(frame.numel(), []).append(frame)
        self._lent.clear()

    def perform(self, asked: Effect[Any]) -> object:
        """Answer one effect of the hosted node."""
        match asked:
            case Gradient(at=at):
                return self._gradient(at)
            case Exchange(payload=payload, neighbors=neighbors):
                return self._collect(self._post(payload, neighbors), "Exchange")
            case Post(payload=payload, neighbors=neighbors):
                return self._post(payload, neighbors)
            case Collect(ticket=ticket):
                return self._collect(ticket, "Collect")
            case AllReduce(x=x):
                self.bytes_sent[self._node] += all_reduce_bytes(x, self._nodes)
                return self._mean(x, "AllReduce")
            case _:
                raise TypeError(f"the rank driver does not answer {type(asked).__name__}")

    def _post(self, payload: Payload, neighbors: tuple[int, ...]) -> Ticket:
        self._tickets += 1
        ticket = Ticket(self._tickets)
        stamp = self._stamp(payload)
        outgoing = self._frame(stamp)
        fill(outgoing, stamp, payload)
        self._posted[ticket] = posted = _Posted(payload, versions(payload), stamp, outgoing, {})
        for neighbor in neighbors:
            incoming = self._frame(stamp)
            try:
                posted.incoming[neighbor] = incoming, self._links[neighbor].start(outgoing, incoming)
            except BrokenLinkError as error:
                raise self._lost(neighbor, "Post", outgoing.numel(), 0.0, str(error)) from error
        self.bytes_sent[self._node] += len(neighbors) * outgoing.numel()
        self._sequence += 1
        return ticket

    def _collect(self, ticket: Ticket, kind: str) -> Mapping[int, Payload]:
        posted = self._posted[ticket]  # kept if a neighbor is lost: gloo may still fill the frames of the others
        deadline = monotonic() + self._timeout_s
        received = {}
        for neighbor in posted.incoming:
            frame = self._arrived(neighbor, posted, kind, deadline)
            received[neighbor] = payload_views(frame, posted.payload)
        check_untouched(posted.payload, posted.versions, self._node)
        del self._posted[ticket]
        self._lent += [posted.outgoing, *(frame for frame, _ in posted.incoming.values())]
        return received

    def _arrived(self, neighbor: int, posted: _Posted, kind: str, deadline: float) -> Tensor:
        frame, finish = posted.incoming[neighbor]
        expected = posted.stamp._replace(sender=neighbor)
        try:
            finish(deadline - monotonic())
            check_header(frame[:HEADER_BYTES].numpy().tobytes(), expected)
        except BrokenLinkError as error:
            waited_s = self._timeout_s - (deadline - monotonic())
            raise self._lost(neighbor, kind, frame.numel(), waited_s, str(error)) from error
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

    def _frame(self, stamp: Stamp) -> Tensor:
        size = HEADER_BYTES + stamp.payload_bytes
        free = self._free.get(size)
        return free.pop() if free else torch.zeros(size, dtype=torch.uint8)

    def _all_ranks(self) -> Any:
        if self._group is None:
            self._group = self._make_group()
        return self._group

    def _mean(self, x: Tensor, kind: str) -> Tensor:
        total = x.clone()
        self._together(kind, total.nbytes, AllreduceOptions(), lambda group, how: group.allreduce([total], how))
        return total.div_(self._nodes)

    def _together(
        self, kind: str, nbytes: int, options: Any, begin: Callable[[Any, Any], Any], patience_s: float = 0.0
    ) -> None:
        """Perform one operation of all ranks within the timeout."""
        # Not only the wait: an operation that goes on after it holds up the end of its group, and so `close`.
        options.timeout = patience = timedelta(seconds=self._timeout_s + patience_s)
        began = monotonic()
        try:
            begin(self._all_ranks(), options).wait(patience)
        except RuntimeError as error:
            waited_s = monotonic() - began
            raise LostNeighborError(
                f"node {self._node} waited {waited_s:.1f} s for all nodes in round {self._round}: {told(error)} "
                f"({kind}, {_human_bytes(nbytes)}, gloo)"
            ) from error

    def mean(self, vectors: Mapping[int, Tensor]) -> Tensor:
        return self._mean(vectors[self._node], "evaluation")

    def gather(self, values: Mapping[int, list[float]], patience_s: float = 0.0) -> list[list[float]]:
        own = torch.tensor(values[self._node], dtype=torch.float64)
        everyone = [torch.empty_like(own) for _ in range(self._nodes)]
        options = AllgatherOptions()
        self._together(
            "evaluation", own.nbytes, options, lambda group, how: group.allgather([everyone], [own], how), patience_s
        )
        return [numbers.tolist() for numbers in everyone]

    def broadcast(self, x: Tensor, patience_s: float = 0.0) -> None:
        """Overwrite `x` with node 0's: for the start of a run."""
        options = BroadcastOptions()
        self._together("start", x.nbytes, options, lambda group, how: group.broadcast([x], how), patience_s)

    def close(self) -> None:
        for link in self._links.values():
            link.close()
        self._posted.clear()
        self._group = None


def _human_bytes(nbytes: int) -> str:
    return f"{nbytes / 1e6:.1f} MB" if nbytes >= 1e5 else f"{nbytes / 1e3:.1f} kB"

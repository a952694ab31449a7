"""Pushes in virtual time: one place at the sender's end of each link, and one at the receiver's."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from decentral.peer import Arrival, Payload, Push
from decentral.transport.clock.numbers import Numbers
from decentral.transport.clock.queue import Phase, Queue
from decentral.transport.clock.times import VirtualTime
from decentral.transport.driver import check_alike, versions
from decentral.transport.frames import HEADER_BYTES, payload_bytes
from decentral.transport.mail import changed


class Pushed(NamedTuple):
    """What is on its way. No tensor of it is ever written to: sums are new ones."""

    payload: Payload
    nbytes: int  # of its frame
    step: int
    adds: bool

    def after(self, earlier: "Pushed") -> "Pushed":
        """What is in a place that had `earlier` in it."""
        if not self.adds:
            return self
        total = tuple(a + b for a, b in zip(earlier.payload, self.payload, strict=True))
        return self._replace(payload=total)


class Pushes:
    """Of all nodes.

    Args:
        nodes: how many.
        time: of the run.
        queue: where arrivals are foreseen.
        bytes_sent: the driver's count, by node.
        arrived: is told the node, when something has arrived that it can look at.
        duplicate: is told the receiver, the sender and the number of a message that has come before.
    """

    def __init__(
        self,
        nodes: int,
        time: VirtualTime,
        queue: Queue,
        bytes_sent: dict[int, int],
        arrived: Callable[[int], None],
        duplicate: Callable[[int, int, int], None],
    ) -> None:
        self._time, self._queue, self._bytes_sent = time, queue, bytes_sent
        self._arrived, self._duplicate = arrived, duplicate
        self.used = False
        self.numbers = Numbers()
        self._leaving: dict[tuple[int, int], Pushed] = {}  # by sender and receiver
        self._boxes: list[dict[int, tuple[Pushed, float]]] = [{} for _ in range(nodes)]  # of each, by sender
        self._lent: dict[tuple[int, int], tuple[Payload, tuple[int, ...]]] = {}  # by receiver and sender

    def push(self, sender: int, asked: Push, at_s: float) -> None:
        """Put something into the places for some neighbors; what can leave leaves.

        Raises:
            RuntimeError: the payload is not like what the receivers expect, or there is no such node.
        """
        self.used = True
        copies: dict[int, Pushed] = {}
        for receiver, payload in asked.to.items():
            if not 0 <= receiver < len(self._boxes):
                raise RuntimeError(f"node {sender} pushed to node {receiver}, which there is not")
            check_alike(payload, asked.like, sender, receiver)
            if (pushed := copies.get(id(payload))) is None:
                copy, nbytes = tuple([tensor.clone() for tensor in payload]), HEADER_BYTES + payload_bytes(payload)
                pushed = copies[id(payload)] = Pushed(copy, nbytes, asked.step, asked.adds)
            edge = sender, receiver
            if edge in self._leaving:
                self._leaving[edge] = pushed.after(self._leaving[edge])
            elif (free_s := self._time.free_s(sender, receiver)) <= at_s:
                self._leave(edge, pushed, at_s)
            else:
                self._leaving[edge] = pushed
                self._queue.foresee(free_s, Phase.ARRIVE, sender, partial(self._leave_later, edge), for_ever=True)

    def _leave_later(self, edge: tuple[int, int], at_s: float) -> None:
        self._leave(edge, self._leaving.pop(edge), at_s)

    def _leave(self, edge: tuple[int, int], pushed: Pushed, at_s: float) -> None:
        sender, receiver = edge
        found = self._time.transfer(sender, receiver, pushed.nbytes, at_s)
        self._bytes_sent[sender] += pushed.nbytes * found.tries
        number = self.numbers.next(sender, receiver)
        for arrival_s in found.arrivals_s:
            deliver = partial(self._deliver, edge, number, pushed)
            self._queue.foresee(arrival_s, Phase.ARRIVE, receiver, deliver, for_ever=True)

    def _deliver(self, edge: tuple[int, int], number: int, pushed: Pushed, at_s: float) -> None:
        sender, receiver = edge
        if not self.numbers.is_new(sender, receiver, number):
            self._duplicate(receiver, sender, number)
            return
        box = self._boxes[receiver]
        box[sender] = (pushed.after(box[sender][0]) if sender in box else pushed), at_s
        self._arrived(receiver)

    def take(self, node: int) -> dict[int, Arrival]:
        """All that has arrived at a node; by sender, in ascending order.

        Raises:
            RuntimeError: the node has written to what it took before.
        """
        taken = {}
        for sender, (pushed, at_s) in sorted(self._boxes[node].items()):
            lent, before = self._lent.get((node, sender), ((), ()))
            if versions(lent) != before:
                raise changed(None)
            self._lent[node, sender] = pushed.payload, versions(pushed.payload)
            taken[sender] = Arrival(pushed.payload, pushed.step, at_s)
        self._boxes[node].clear()
        return taken

    def drop(self) -> None:
        """What is under way or has come goes."""
        self._leaving.clear()
        for box in self._boxes:
            box.clear()

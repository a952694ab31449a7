"""What takes how long in virtual time: gradients at their nodes, messages on their links, all-reduces on their ring."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from decentral.transport.clock.course import LinkCourse, NodeCourse
from decentral.transport.clock.log import EventLog, Recorded, Transfer
from decentral.transport.clock.numbers import Numbers
from decentral.transport.clock.spells import Away, Slowed, back_s, computed_at_s
from decentral.transport.lockstep import DeadlockError


@dataclass(frozen=True)
class Wire:
    """One direction of a link.

    Attributes:
        loss: share of messages that are lost, and of acknowledgments.
        retransmit_s: how long after sending a message that was not acknowledged is sent again.
    """

    latency_s: float = 0.0
    bytes_s: float = inf
    loss: float = 0.0
    retransmit_s: float = inf


class Random(Protocol):
    def random(self) -> float:
        """A number from 0 to 1."""


@dataclass
class VirtualTime:
    """What takes how long, and how far each node is.

    Args:
        gradient_s: of each node.
        wire: from one node to another.
        factors: of nodes whose gradients differ in time, what each of these is multiplied by, one after the other.
        slowed: of nodes that are slower at times.
        away: of nodes that are down at times.
        draws: of a link, what decides which of its messages are lost.
        node_bytes_s: of each node's own connection, in each direction, which all its links share; it sends one message
            after the other, and takes in one after the other.
        log: where all times are written.
        recorded: the log of an earlier run, from which they are taken in place of the above.
        now_s: each node's own time.
    """

    gradient_s: Sequence[float]
    wire: Callable[[int, int], Wire]
    factors: Mapping[int, Iterator[float]] = field(default_factory=dict)
    slowed: Mapping[int, Sequence[Slowed]] = field(default_factory=dict)
    away: Mapping[int, Sequence[Away]] = field(default_factory=dict)
    draws: Callable[[int, int], Random] | None = None
    node_bytes_s: float = inf
    log: EventLog | None = None
    recorded: Recorded | None = None
    now_s: list[float] = field(init=False)
    _free_s: dict[tuple[int, int], float] = field(default_factory=dict)  # from when on each link is free
    _up_s: dict[int, float] = field(default_factory=dict)  # from when on a node's connection sends the next
    _down_s: dict[int, float] = field(default_factory=dict)  # and when it has taken in the last
    _random: dict[tuple[int, int], Random] = field(default_factory=dict)
    _drawn: dict[tuple[int, int], int] = field(default_factory=dict)  # for each link
    _sent: dict[tuple[int, int], int] = field(default_factory=dict)  # messages over each link
    _gradients: list[int] = field(init=False)  # of each node

    def __post_init__(self) -> None:
        self.now_s = [0.0] * len(self.gradient_s)
        self._gradients = [0] * len(self.gradient_s)
        if self.recorded is not None:
            self.away = self.recorded.away
        # A node that is down computes nothing.
        self._standing = {n: [Slowed(each.spells, inf) for each in down] for n, down in self.away.items()}

    @property
    def seconds(self) -> float:
        """Of the node that is furthest."""
        return max(self.now_s)

    def gradient_until_s(self, node: int, at_s: float) -> float:
        """When a gradient is there that is begun at a time; infinite for never."""
        number = self._gradients[node]
        self._gradients[node] += 1
        if self.recorded is not None:
            until_s = self.recorded.gradient_until_s(node, number, at_s)
        else:
            work_s = self.gradient_s[node]
            if node in self.factors:
                work_s *= next(self.factors[node])
            slowed = [*self.slowed.get(node, ()), *self._standing.get(node, ())]
            until_s = computed_at_s(at_s, work_s, slowed) if slowed else at_s + work_s
        if self.log is not None:
            self.log.gradient(node, number, at_s, until_s)
        return until_s

    def computed_s(self, node: int, at_s: float) -> float:
        """The same where all wait for the node.

        Raises:
            DeadlockError: never.
        """
        until_s = self.gradient_until_s(node, at_s)
        if until_s == inf:
            raise DeadlockError(f"node {node} stands still for ever in a gradient that it began at {at_s:g} s")
        return until_s

    def free_s(self, sender: int, receiver: int) -> float:
        """From when on a link takes the next message."""
        return self._free_s.get((sender, receiver), 0.0)

    def transfer(self, sender: int, receiver: int, nbytes: int, at_s: float) -> Transfer:
        """Send a message at a time, after those before it on its link, which is occupied by it, but for the latency."""
        edge = sender, receiver
        number = self._sent.get(edge, 0)
        self._sent[edge] = number + 1
        if self.recorded is not None:
            found = self.recorded.transfer(sender, receiver, number, at_s)
        else:
            found = self._transfer(edge, nbytes, max(at_s, self._free_s.get(edge, 0.0)))
        self._free_s[edge] = found.free_s
        if self.log is not None:
            self.log.message(sender, receiver, number, at_s, found)
        return found

    def _transfer(self, edge: tuple[int, int], nbytes: int, at_s: float) -> Transfer:
        sender, receiver = edge
        wire, sending, receiving = self.wire(sender, receiver), self.away.get(sender), self.away.get(receiver)
        if sending:
            at_s = back_s(at_s, sending)
        if wire.loss:
            return self._until_acknowledged(edge, wire, nbytes, at_s)
        sent_s = self._sent_s(edge, wire, nbytes, at_s)
        came_s = self._came_s(edge, wire, nbytes, sent_s)
        return Transfer((back_s(came_s, receiving) if receiving else came_s,), sent_s, 1)

    def _sent_s(self, edge: tuple[int, int], wire: Wire, nbytes: int, at_s: float) -> float:
        """When the last of a message has left its sender, which has first to send what was before."""
        if self.node_bytes_s == inf:
            return at_s + nbytes / wire.bytes_s
        sent_s = max(at_s, self._up_s.get(edge[0], 0.0)) + nbytes / min(wire.bytes_s, self.node_bytes_s)
        self._up_s[edge[0]] = sent_s
        return sent_s

    def _came_s(self, edge: tuple[int, int], wire: Wire, nbytes: int, sent_s: float) -> float:
        """When it is there: as it is sent, unless the receiver has still to take in others."""
        came_s = sent_s + wire.latency_s
        if self.node_bytes_s < inf:
            came_s = max(came_s, self._down_s.get(edge[1], 0.0) + nbytes / self.node_bytes_s)
            self._down_s[edge[1]] = came_s
        return came_s

    def _until_acknowledged(self, edge: tuple[int, int], wire: Wire, nbytes: int, at_s: float) -> Transfer:
        """Stop and wait: the link takes nothing else before the acknowledgment is back."""
        sending, receiving = (self.away.get(node, ()) for node in edge)
        arrivals, tries = [], 0
        while True:
            tries += 1
            sent_s = self._sent_s(edge, wire, nbytes, at_s)
            came_s = self._came_s(edge, wire, nbytes, sent_s)
            if self._draw(edge) >= wire.loss and back_s(came_s, receiving) == came_s:
                arrivals.append(came_s)
                heard_s = came_s + wire.latency_s
                if self._draw(edge) >= wire.loss and back_s(heard_s, sending) == heard_s:
                    return Transfer(tuple(arrivals), heard_s, tries)
            at_s = back_s(sent_s + wire.retransmit_s, sending)
            if at_s == inf or (receiving and back_s(at_s, receiving) == inf):
                return Transfer(tuple(arrivals) or (inf,), inf, tries)

    def _draw(self, edge: tuple[int, int]) -> float:
        assert self.draws is not None
        self._drawn[edge] = self._drawn.get(edge, 0) + 1
        return (self._random.get(edge) or self._random.setdefault(edge, self.draws(*edge))).random()

    def courses(self, numbers: Numbers, down: Collection[int]) -> dict[int, NodeCourse]:
        """What is to be remembered of all nodes where nothing is under way.

        Args:
            numbers: of the messages.
            down: the nodes that are.
        """
        links: list[dict[int, LinkCourse]] = [{} for _ in self._gradients]
        for edge, sent in sorted(self._sent.items()):
            link = LinkCourse(sent, numbers.sent(*edge), self._free_s[edge], self._drawn.get(edge, 0))
            links[edge[0]][edge[1]] = link
        logged = 0 if self.log is None else self.log.length()
        return {
            node: NodeCourse(
                gradients, links[node], self._up_s.get(node, 0.0), self._down_s.get(node, 0.0), node in down, logged
            )
            for node, gradients in enumerate(self._gradients)
        }

    def go_on(self, courses: Mapping[int, NodeCourse]) -> None:
        """Begin with what is remembered of all nodes.

        Raises:
            ConfigError: the event log is shorter than it was.
        """
        for node, course in courses.items():
            while self._gradients[node] < course.gradients:
                self._gradients[node] += 1
                if self.recorded is None and node in self.factors:
                    next(self.factors[node])
            self._up_s[node], self._down_s[node] = course.up_s, course.down_s
            for receiver, link in course.links.items():
                edge = node, receiver
                self._sent[edge], self._free_s[edge] = link.sent, link.free_s
                while self._drawn.get(edge, 0) < link.draws:
                    self._draw(edge)
        if self.log is not None and courses:
            self.log.cut_back(next(iter(courses.values())).logged)

    def all_reduce_s(self, among: Sequence[int], nbytes: int) -> float:
        """Of a ring all-reduce: 2 (n-1) hops of an n-th of it, each as long as the slowest link on the ring takes.

        A node sends to one neighbor on the ring, so that its own connection is not shared.
        """
        ring = [self.wire(i, j) for i, j in zip(among, [*among[1:], among[0]], strict=True)]
        hop_s = max(wire.latency_s + nbytes / len(among) / min(wire.bytes_s, self.node_bytes_s) for wire in ring)
        return 2 * (len(among) - 1) * hop_s

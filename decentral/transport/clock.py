"""The clock simulator: all nodes in one process, in virtual time. What it takes is told, not measured.

A gradient takes its node so many seconds; sending takes none of its node's time. A message of S bytes occupies its link
in its direction for S over the link's rate, after those that the same node sent over it before, and arrives a latency
later. Nothing else takes time. The same experiment gives the same times, on any machine.

Letters come to a node in the order of virtual time, so whom it serves first depends on it. What an exchange brings does
not: the times of exchanges and all-reduces are worked out beside the lockstep simulator.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from typing import Any, NamedTuple, cast

from torch import Tensor

from decentral.peer import (
    AllReduce,
    Collect,
    Effect,
    Exchange,
    Gradient,
    Letter,
    Messages,
    Mix,
    Post,
    Receive,
    Send,
    Ticket,
)
from decentral.transport.driver import Driver, Finished, GradientAt, Simulator, Step, members, proceed
from decentral.transport.frames import HEADER_BYTES, payload_bytes
from decentral.transport.lockstep import DeadlockError, LockstepDriver
from decentral.transport.mail import Mail


@dataclass(frozen=True)
class Wire:
    """One direction of a link."""

    latency_s: float = 0.0
    bytes_s: float = inf


@dataclass
class VirtualTime:
    """What takes how long, and how far each node is.

    Args:
        gradient_s: of each node.
        wire: from one node to another.
        now_s: each node's own time.
    """

    gradient_s: Sequence[float]
    wire: Callable[[int, int], Wire]
    now_s: list[float] = field(init=False)
    _free_s: dict[tuple[int, int], float] = field(default_factory=dict)  # from when on each link is free

    def __post_init__(self) -> None:
        self.now_s = [0.0] * len(self.gradient_s)

    @property
    def seconds(self) -> float:
        """Of the node that is furthest."""
        return max(self.now_s)

    def arrival(self, sender: int, receiver: int, nbytes: int, at_s: float) -> float:
        """When a message arrives that is sent at a time; its link is occupied until then, but for the latency."""
        wire = self.wire(sender, receiver)
        sent_s = max(at_s, self._free_s.get((sender, receiver), 0.0)) + nbytes / wire.bytes_s
        self._free_s[sender, receiver] = sent_s
        return sent_s + wire.latency_s

    def all_reduce_s(self, among: Sequence[int], nbytes: int) -> float:
        """Of a ring all-reduce: 2 (n-1) hops of an n-th of it, each as long as the slowest link on the ring takes."""
        ring = [self.wire(i, j) for i, j in zip(among, [*among[1:], among[0]], strict=True)]
        hop_s = max(wire.latency_s + nbytes / len(among) / wire.bytes_s for wire in ring)
        return 2 * (len(among) - 1) * hop_s


class _Event(NamedTuple):
    at_s: float
    order: int  # of two at the same time, that which was foreseen first
    node: int
    what: object  # a Letter on its way, or an _Answer


class _Answer(NamedTuple):
    to_step: object


class LettersInTime(Simulator):
    """Hosts all nodes of a method that sends letters.

    Args:
        gradients: for each node, its answer to `Gradient`.
        time: of the run.
    """

    def __init__(self, gradients: Sequence[GradientAt], time: VirtualTime) -> None:
        self.hosted = tuple(range(len(gradients)))
        self.bytes_sent = dict.fromkeys(self.hosted, 0)
        self._gradients, self._time = gradients, time
        self._mail = Mail(self.hosted)
        self._events: list[_Event] = []
        self._foreseen = 0
        self._waiting: dict[int, tuple[Receive, float]] = {}  # since when
        self._losses: dict[int, Tensor] = {}

    def clock(self) -> float:
        return self._time.seconds

    def advance(self, steps: Mapping[int, Step], round: int) -> dict[int, Tensor]:
        try:
            return self._advance(steps, round)
        except BaseException:
            self.close()
            raise
        finally:
            for step in steps.values():
                step.close()

    def _advance(self, steps: Mapping[int, Step], round: int) -> dict[int, Tensor]:
        self._losses = {}
        for node in sorted(steps):
            self._foresee(self._time.now_s[node], node, _Answer(None))
        while len(self._losses) < len(steps):
            if not self._events:
                who = (
                    f"node {node} waits for a letter since {s:g} s" for node, (_, s) in sorted(self._waiting.items())
                )
                raise DeadlockError(f"round {round}: no node can go on: {', '.join([*who][:5])}")
            event = heappop(self._events)
            if isinstance(event.what, Letter):
                self._arrived(event.node, event.what, event.at_s)
            else:
                self._go_on(steps[event.node], event.node, cast(_Answer, event.what).to_step, event.at_s)
        self._mail.close_all()
        return self._losses

    def _foresee(self, at_s: float, node: int, what: object) -> None:
        self._foreseen += 1
        heappush(self._events, _Event(at_s, self._foreseen, node, what))

    def _arrived(self, node: int, letter: Letter, at_s: float) -> None:
        self._mail.deliver(node, letter)
        if node in self._waiting:
            asked, _ = self._waiting.pop(node)
            self._foresee(at_s, node, _Answer(self._mail.take(node, asked)))

    def _go_on(self, step: Step, node: int, answer: object, at_s: float) -> None:
        match asked := proceed(step, answer):
            case Finished():
                self._losses[node], self._time.now_s[node] = asked.loss, at_s
            case Gradient(at=at):
                answer = self._gradients[node](at)
                self._foresee(at_s + self._time.gradient_s[node], node, _Answer(answer))
            case Send():
                letter, nbytes = self._mail.letter(node, asked)
                self.bytes_sent[node] += nbytes
                self._foresee(self._time.arrival(node, asked.to, nbytes, at_s), asked.to, letter)
                self._foresee(at_s, node, _Answer(None))
            case Receive():
                if (came := self._mail.take(node, asked)) is None:
                    self._waiting[node] = asked, at_s
                else:
                    self._foresee(at_s, node, _Answer(came))
            case _:
                raise TypeError(f"the clock driver does not answer {type(asked).__name__} where letters are sent")

    def close(self) -> None:
        self._mail.clear()
        self._events.clear()
        self._waiting.clear()


class ExchangesInTime(Driver):
    """The lockstep simulator of a method that exchanges, with the times of what it does beside it.

    Args:
        driver: the simulator.
        time: of the run.
    """

    def __init__(self, driver: LockstepDriver, time: VirtualTime) -> None:
        self.hosted, self.bytes_sent = driver.hosted, driver.bytes_sent
        self._driver, self._time = driver, time
        self._began: dict[int, int] = {}  # exchanges by each node, in this round
        self._arrivals: dict[tuple[int, int, tuple[int, int]], float] = {}  # by sender, receiver and place
        self._posted: dict[Ticket, tuple[Messages, tuple[int, int]]] = {}
        self._sums: dict[tuple[tuple[int, ...], int], list[float]] = {}  # when each asked, by members and number
        self._reduced: dict[int, int] = {}  # all-reduces by each node, in this round

    def clock(self) -> float:
        return self._time.seconds

    def advance(self, steps: Mapping[int, Step], round: int) -> dict[int, Tensor]:
        self._began, self._reduced = dict.fromkeys(self.hosted, 0), dict.fromkeys(self.hosted, 0)
        self._sums.clear()
        return self._driver.advance({node: self._watched(step, node, round) for node, step in steps.items()}, round)

    def _watched(self, step: Step, node: int, round: int) -> Step:
        watching = cast(Any, self._watch(step, node, round))
        watching.__qualname__ = getattr(step, "__qualname__", "step")  # faults name it
        return cast(Step, watching)

    def _watch(self, step: Step, node: int, round: int) -> Generator[Effect[Any], Any, Tensor]:
        answer: Any = None
        try:
            while True:
                try:
                    asked = step.send(answer)
                except StopIteration as done:
                    return cast(Tensor, done.value)
                under_way = self._asked(node, asked, round)
                answer = yield asked
                self._answered(node, asked, answer, under_way)
        finally:
            step.close()

    def _asked(self, node: int, asked: Effect[Any], round: int) -> Any:
        """Note what a node sends, and what it is to wait for."""
        now_s = self._time.now_s[node]
        if isinstance(asked, AllReduce):
            among = members(asked, node, len(self.hosted))
            key = among, self._reduced[node]
            self._reduced[node] += 1
            self._sums.setdefault(key, []).append(now_s)
            return key
        messages = _sent(asked)
        if messages is None:
            return None
        place = round, self._began[node]
        self._began[node] += 1
        nbytes = HEADER_BYTES + payload_bytes(messages.like)
        for receiver in messages.to:
            self._arrivals[node, receiver, place] = self._time.arrival(node, receiver, nbytes, now_s)
        return messages, place

    def _answered(self, node: int, asked: Effect[Any], answer: Any, under_way: Any) -> None:
        match asked:
            case Gradient():
                self._time.now_s[node] += self._time.gradient_s[node]
            case Post():
                self._posted[answer] = under_way
            case Collect(ticket=ticket):
                self._wait(node, *self._posted.pop(ticket))
            case Exchange() | Mix():
                self._wait(node, *under_way)
            case AllReduce(x=x):
                among, _ = under_way
                self._time.now_s[node] = max(self._sums[under_way]) + self._time.all_reduce_s(among, x.nbytes)

    def _wait(self, node: int, messages: Messages, place: tuple[int, int]) -> None:
        came_s = [self._arrivals.pop((sender, node, place)) for sender in messages.sources]
        self._time.now_s[node] = max([self._time.now_s[node], *came_s])

    @property
    def living(self) -> tuple[int, ...]:
        return self._driver.living

    def mean(self, vectors: Mapping[int, Tensor], weights: Mapping[int, float] | None = None) -> Tensor:
        return self._driver.mean(vectors, weights)

    def gather(self, values: Mapping[int, list[float]], patience_s: float = 0.0) -> list[list[float]]:
        return self._driver.gather(values, patience_s)

    def close(self) -> None:
        self._driver.close()


def _sent(asked: Effect[Any]) -> Messages | None:
    """What an effect sends."""
    if isinstance(asked, Exchange | Post):
        return asked.messages
    if isinstance(asked, Mix):
        return Messages.alike((asked.x,), asked.row.to, asked.row.sources)
    return None

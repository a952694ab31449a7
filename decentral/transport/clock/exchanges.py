"""Exchanges and all-reduces in virtual time, worked out beside the lockstep simulator, whose models these are."""

from collections.abc import Generator, Mapping
from math import inf
from typing import Any, cast

from torch import Tensor

from decentral.peer import AllReduce, Collect, Effect, Exchange, Gradient, Messages, Mix, Post, Ticket
from decentral.transport.clock.times import VirtualTime
from decentral.transport.driver import Step, Watching, members
from decentral.transport.frames import HEADER_BYTES, payload_bytes
from decentral.transport.lockstep import DeadlockError, LockstepDriver


class ExchangesInTime(Watching):
    """The lockstep simulator of a method that exchanges, with the times of what it does beside it.

    Args:
        driver: the simulator.
        time: of the run.
    """

    def __init__(self, driver: LockstepDriver, time: VirtualTime) -> None:
        super().__init__(driver)
        self._time = time
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
            found = self._time.transfer(node, receiver, nbytes, now_s)
            self._arrivals[node, receiver, place] = found.arrivals_s[0]
            self.bytes_sent[node] += (found.tries - 1) * nbytes  # the lockstep driver counts the first
        return messages, place

    def _answered(self, node: int, asked: Effect[Any], answer: Any, under_way: Any) -> None:
        match asked:
            case Gradient():
                self._time.now_s[node] = self._time.computed_s(node, self._time.now_s[node])
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
        if inf in came_s:
            sender = messages.sources[came_s.index(inf)]
            raise DeadlockError(f"node {node} waits for ever for node {sender}: one of the two is down")
        self._time.now_s[node] = max([self._time.now_s[node], *came_s])


def _sent(asked: Effect[Any]) -> Messages | None:
    """What an effect sends."""
    if isinstance(asked, Exchange | Post):
        return asked.messages
    if isinstance(asked, Mix):
        return Messages.alike((asked.x,), asked.row.to, asked.row.sources)
    return None

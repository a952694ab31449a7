"""Letters in virtual time: whoever waits for one goes on when it arrives."""

from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from typing import NamedTuple, cast

from torch import Tensor

from decentral.peer import Gradient, Letter, Receive, Send
from decentral.transport.clock.numbers import Numbers
from decentral.transport.clock.times import VirtualTime
from decentral.transport.driver import Finished, GradientAt, Simulator, Step, proceed
from decentral.transport.lockstep import DeadlockError
from decentral.transport.mail import Mail


class _Event(NamedTuple):
    at_s: float
    order: int  # of two at the same time, that which was foreseen first
    node: int
    what: object  # an _OnItsWay, or an _Answer


class _OnItsWay(NamedTuple):
    letter: Letter
    number: int  # on its link


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
        self._numbers = Numbers()

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
            if isinstance(event.what, _OnItsWay):
                self._arrived(event.node, event.what, event.at_s)
            else:
                self._go_on(steps[event.node], event.node, cast(_Answer, event.what).to_step, event.at_s)
        self._mail.close_all()
        return self._losses

    def _foresee(self, at_s: float, node: int, what: object) -> None:
        self._foreseen += 1
        heappush(self._events, _Event(at_s, self._foreseen, node, what))

    def _send(self, node: int, to: int, letter: Letter, nbytes: int, at_s: float) -> None:
        found = self._time.transfer(node, to, nbytes, at_s)
        self.bytes_sent[node] += nbytes * found.tries
        number = self._numbers.next(node, to)
        for arrival_s in found.arrivals_s:
            self._foresee(arrival_s, to, _OnItsWay(letter, number))

    def _arrived(self, node: int, came: _OnItsWay, at_s: float) -> None:
        if not self._numbers.is_new(came.letter.sender, node, came.number):
            return
        self._mail.deliver(node, came.letter)
        if node in self._waiting:
            asked, _ = self._waiting.pop(node)
            self._foresee(at_s, node, _Answer(self._mail.take(node, asked)))

    def _go_on(self, step: Step, node: int, answer: object, at_s: float) -> None:
        match asked := proceed(step, answer):
            case Finished():
                self._losses[node], self._time.now_s[node] = asked.loss, at_s
            case Gradient(at=at):
                answer = self._gradients[node](at)
                self._foresee(self._time.computed_s(node, at_s), node, _Answer(answer))
            case Send():
                letter, nbytes = self._mail.letter(node, asked)
                self._send(node, asked.to, letter, nbytes, at_s)
                self._foresee(at_s, node, _Answer(None))
            case Receive(wait=True):
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

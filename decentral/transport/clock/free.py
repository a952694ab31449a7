"""A free run in virtual time: nodes step at their own pace, push, poll and send letters, go down and come back."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import inf
from typing import Any

from torch import Tensor

from decentral.peer import Effect, Gradient, Letter, Now, Poll, Push, Receive, Send
from decentral.transport.clock.numbers import Numbers
from decentral.transport.clock.pushes import Pushes
from decentral.transport.clock.queue import Event, Phase, Queue
from decentral.transport.clock.spells import Away
from decentral.transport.clock.starving import Progress, who_waits
from decentral.transport.clock.times import VirtualTime
from decentral.transport.driver import Finished, FreeRun, GradientAt, Simulator, Step, proceed
from decentral.transport.lockstep import DeadlockError
from decentral.transport.mail import Mail

_NOTHING_YET = object()


class FreeInTime(Simulator):
    """Hosts all nodes of a method whose nodes step at their own pace.

    Args:
        gradients: for each node, its answer to `Gradient`.
        time: of the run.
        starving: a node that makes no step while the mean of the others makes so many is an error.
    """

    def __init__(self, gradients: Sequence[GradientAt], time: VirtualTime, starving: int = 1000) -> None:
        self.hosted = tuple(range(len(gradients)))
        self.bytes_sent = dict.fromkeys(self.hosted, 0)
        self._gradients, self._time = gradients, time
        self._queue = Queue(len(gradients))
        self._mail, self._numbers = Mail(self.hosted), Numbers()
        self._pushes = Pushes(len(gradients), time, self._queue, self.bytes_sent, self._wake, self._duplicate)
        self._starving = starving
        self._steps: dict[int, Step] = {}
        self._waiting: dict[int, tuple[Effect[Any], float]] = {}  # since when
        self._serving: set[int] = set()
        self._down: set[int] = set()

    def clock(self) -> float:
        return self._queue.now_s

    def advance(self, steps: Mapping[int, Step], round: int) -> dict[int, Tensor]:  # noqa: ARG002
        raise TypeError(f"{type(self).__name__} knows no rounds")

    def run_free(self, run: FreeRun) -> None:
        """Run to the end.

        Raises:
            DeadlockError: a node can never go on, or makes no step while others make many.
        """
        self._run, self._look_s = run, run.look_s()
        try:
            self._begin_all(run)
            while (next_s := self._queue.next_s) < inf or self._somebody_comes_back():
                while next_s > self._look_s:
                    run.look(self._look_s)
                    self._look_s = run.look_s()
                self._happen()
            self._check_all_through()
            run.at_s = self._queue.now_s
            numbers = self._pushes.numbers if self._pushes.used else self._numbers
            run.courses = self._time.courses(numbers, self._down)
        finally:
            self.close()

    def _begin_all(self, run: FreeRun) -> None:
        """Begin with what the run remembers, and nothing else, so that one that goes on later does the same."""
        at_s = self._queue.now_s = run.at_s
        self._progress = Progress(len(self.hosted), self._starving)
        self._serving.clear()
        courses = run.courses or {}
        self._down = {node for node, course in courses.items() if course.is_down}
        self._time.go_on(courses)
        for numbers in (self._numbers, self._pushes.numbers):
            for node, course in courses.items():
                for receiver, link in course.links.items():
                    numbers.go_on(node, receiver, link.numbers)
        for node in self.hosted:
            if node not in self._down:
                self._begin(node, at_s)
            for away in self._time.away.get(node, ()):
                if node in self._down and away.spells.during(at_s):
                    self._foresee_up(node, away, at_s)
                else:
                    self._foresee_down(node, away, at_s)

    def _somebody_comes_back(self) -> bool:
        """Whether a node is down that has not made its steps, and is to go on."""
        return any(self._comes_back(node) for node in self._down - self._serving)

    def _comes_back(self, node: int) -> bool:
        return any(
            away.spells.during(self._queue.now_s) and away.spells.next_end_s(self._queue.now_s) < inf
            for away in self._time.away[node]
        )

    def _happen(self) -> None:
        event = self._queue.next()
        if event is None:
            return
        if event.phase is Phase.LOOK:
            self._look(event)
        else:
            event.happen(event.at_s)

    def _look(self, first: Event) -> None:
        """All who look at this instant see what has arrived by then, and go on after that."""
        looks = self._queue.looks(first)
        for event in looks:
            event.happen(event.at_s)

    def _begin(self, node: int, at_s: float) -> None:
        step = self._run.begin(node, at_s)
        if step is None:
            self._serving.add(node)
            step = self._run.serve(node)
        self._steps[node] = step
        self._queue.foresee(at_s, Phase.GO_ON, node, partial(self._go_on, node, None))

    def _go_on(self, node: int, answer: object, at_s: float) -> None:
        while True:
            asked = proceed(self._steps[node], answer)
            if isinstance(asked, Finished):
                self._finished(node, asked.loss, at_s)
                return
            answer = self._answer(node, asked, at_s)
            if answer is _NOTHING_YET:
                return

    def _finished(self, node: int, loss: Tensor, at_s: float) -> None:
        self._time.now_s[node] = at_s
        if node in self._serving:
            return
        if self._time.log is not None:
            self._time.log.step(node, at_s)
        self._run.end(node, loss, at_s)
        self._progress.step(node, self._down | self._serving, at_s, self._waiting)
        self._begin(node, at_s)

    def _answer(self, node: int, asked: Effect[Any], at_s: float) -> object:
        """The answer to an effect; _NOTHING_YET where the node goes on later."""
        match asked:
            case Gradient(at=at):
                answer = self._gradients[node](at)
                until_s = self._time.gradient_until_s(node, at_s)
                if until_s == inf:
                    self._waiting[node] = asked, at_s
                self._queue.foresee(until_s, Phase.GO_ON, node, partial(self._go_on, node, answer))
            case Poll() | Receive():
                self._queue.foresee(at_s, Phase.LOOK, node, partial(self._seek, node, asked, at_s))
            case Push():
                self._check_one_way(node, self._mail.used)
                self._pushes.push(node, asked, at_s)
                return None
            case Send():
                self._check_one_way(node, self._pushes.used)
                self._send(node, asked, at_s)
                return None
            case Now():
                return at_s
            case _:
                raise TypeError(f"the clock driver does not answer {type(asked).__name__} in a free run")
        return _NOTHING_YET

    def _check_one_way(self, node: int, other_way: bool) -> None:
        if other_way:
            raise RuntimeError(
                f"node {node} pushes and sends letters in one run; on one link they would be taken for each other"
            )

    def _seek(self, node: int, asked: Poll | Receive, since_s: float, at_s: float) -> None:
        """A node looks; where it is to wait until there is something, it looks again when something arrives."""
        answer = self._taken(node, asked, at_s)
        until_s = asked.until_s if isinstance(asked, Receive) else inf
        if answer or not asked.wait or until_s <= at_s:
            self._queue.foresee(at_s, Phase.GO_ON, node, partial(self._go_on, node, answer))
        else:
            self._waiting[node] = asked, since_s
            self._queue.foresee(until_s, Phase.LOOK, node, partial(self._give_up, node, asked, since_s))

    def _give_up(self, node: int, asked: Poll | Receive, since_s: float, at_s: float) -> None:
        if self._waiting.get(node, (None, 0.0))[0] is asked:
            del self._waiting[node]
            self._seek(node, asked, since_s, at_s)

    def _taken(self, node: int, asked: Poll | Receive, at_s: float) -> object:
        if isinstance(asked, Receive):
            return self._mail.take(node, asked)
        taken = self._pushes.take(node)
        if taken and self._time.log is not None:
            self._time.log.taken(node, at_s, {sender: arrival.step for sender, arrival in taken.items()})
        return taken

    def _wake(self, node: int) -> None:
        if node not in self._waiting:
            return
        asked, since_s = self._waiting[node]
        if not isinstance(asked, Poll | Receive):
            return
        del self._waiting[node]
        self._queue.foresee(self._queue.now_s, Phase.LOOK, node, partial(self._seek, node, asked, since_s))

    def _send(self, node: int, asked: Send, at_s: float) -> None:
        letter, nbytes = self._mail.letter(node, asked)
        found = self._time.transfer(node, asked.to, nbytes, at_s)
        self.bytes_sent[node] += nbytes * found.tries
        number = self._numbers.next(node, asked.to)
        for arrival_s in found.arrivals_s:
            deliver = partial(self._deliver, asked.to, letter, number)
            self._queue.foresee(arrival_s, Phase.ARRIVE, asked.to, deliver, for_ever=True)

    def _deliver(self, node: int, letter: Letter, number: int, _at_s: float) -> None:
        if not self._numbers.is_new(letter.sender, node, number):
            self._duplicate(node, letter.sender, number)
            return
        self._mail.deliver(node, letter)
        self._wake(node)

    def _duplicate(self, node: int, sender: int, number: int) -> None:
        self._log("duplicate", node, self._queue.now_s, number=number, **{"from": sender})

    def _foresee_down(self, node: int, away: Away, at_s: float) -> None:
        begins_s = at_s if away.spells.during(at_s) else away.spells.next_end_s(at_s)
        self._queue.foresee_aside(begins_s, node, partial(self._go_down, node, away))

    def _go_down(self, node: int, away: Away, at_s: float) -> None:
        """The step under way is lost, and with it all that the node has not sent or kept in its State."""
        self._log("down", node, at_s, rejoin=away.rejoin)
        if node not in self._serving:
            self._progress.fell(node, at_s)
        self._down.add(node)
        self._waiting.pop(node, None)
        self._queue.lives[node] += 1
        if node in self._steps:
            self._steps[node].close()
        self._foresee_up(node, away, at_s)

    def _foresee_up(self, node: int, away: Away, at_s: float) -> None:
        self._queue.foresee_aside(away.spells.next_end_s(at_s), node, partial(self._come_back, node, away))

    def _come_back(self, node: int, away: Away, at_s: float) -> None:
        self._log("up", node, at_s, rejoin=away.rejoin)
        self._foresee_down(node, away, at_s)
        if any(other.spells.during(at_s) for other in self._time.away[node]):
            return
        self._down.discard(node)
        found = self._run.rejoin(node, at_s) if away.rejoin == "neighbor" else None
        if found is None:
            self._begin(node, at_s)
            return
        neighbor, nbytes = found
        self.bytes_sent[neighbor] += nbytes
        came_s = self._time.transfer(neighbor, node, nbytes, at_s).arrivals_s[0]
        self._queue.foresee(came_s, Phase.GO_ON, node, partial(self._begin, node))

    def _log(self, event: str, node: int, at_s: float, **told: Any) -> None:
        if self._time.log is not None:
            self._time.log.write(event, node=node, at_s=at_s, **told)

    def _check_all_through(self) -> None:
        left = [node for node in self.hosted if node not in self._serving]
        if left and not self._run.is_timed:
            raise DeadlockError(f"no node can go on: {who_waits(left, self._waiting, self._down)}")

    def close(self) -> None:
        for step in self._steps.values():
            step.close()
        self._queue.clear()
        self._waiting.clear()
        self._mail.clear()
        self._pushes.drop()

"""Links and drivers that note on a timeline what they do; what they do is what the wrapped ones do."""

from collections import Counter
from collections.abc import Generator, Mapping
from functools import partial
from time import perf_counter_ns
from typing import Any, cast

from torch import Tensor

from decentral.peer import (
    AllReduce,
    Arrival,
    Collect,
    Effect,
    Exchange,
    Gather,
    Mix,
    Poll,
    Post,
    Push,
    Receive,
    Send,
    Ticket,
)
from decentral.timeline import Category, Span, Timeline
from decentral.transport.driver import Driver, FreeRun, Step, Watching
from decentral.transport.frames import HEADER_BYTES, Stamp, payload_bytes
from decentral.transport.links import Finish, Link, Wait
from decentral.transport.traced_run import TracedRun
from decentral.transport.windows import Window
from decentral.transport.wiring import Wires


def traced_wires(wires: Wires, timeline: Timeline) -> Wires:
    """The same wires, each link's sends and waits on the timeline."""
    timeline.links = {neighbor: link.name for neighbor, link in wires.links.items()}
    timeline.pushed_bytes = dict.fromkeys(wires.links, 0)
    bundles = (
        bundle._replace(links={j: TracedLink(link, j, timeline) for j, link in bundle.links.items()})
        for bundle in wires.bundles
    )
    return Wires(tuple(bundles))


class TracedLink(Link):
    """A link whose sends and waits are spans.

    Both ends number their exchanges in a round alike, so a send on one finds its wait on the other.
    """

    def __init__(self, link: Link, neighbor: int, timeline: Timeline) -> None:
        self.name, self.letters, self.polled = link.name, link.letters, link.polled
        self._link, self._neighbor, self._timeline = link, neighbor, timeline
        self._round, self._sequence = -1, -1
        self._total_bytes = 0

    def start(self, outgoing: Tensor | None, incoming: int, overlapped: bool) -> Finish:
        timeline = self._timeline
        self._sequence = self._sequence + 1 if timeline.round == self._round else 0
        self._round = timeline.round
        began = perf_counter_ns()
        finish = self._link.start(outgoing, incoming, overlapped)
        if outgoing is not None:
            ended = perf_counter_ns()
            self._total_bytes += outgoing.numel()
            place = self._neighbor, self._sequence
            timeline.put(Span("send", self._round, began, ended, *place, self._total_bytes))
        return partial(self._finish, finish, self._round, self._sequence)

    def _finish(self, finish: Finish, round: int, sequence: int, timeout_s: float) -> Tensor | None:
        began = perf_counter_ns()
        try:
            return finish(timeout_s)
        finally:
            self._timeline.put(Span("wait", round, began, perf_counter_ns(), self._neighbor, sequence))

    def check(self, frame: Tensor, expected: Stamp) -> None:
        self._link.check(frame, expected)

    def send(self, frame: Tensor) -> Wait | None:
        self._count(frame)
        return self._link.send(frame)

    def _count(self, frame: Tensor) -> None:
        if frame.numel() > HEADER_BYTES:  # a farewell is no message
            self._add(frame.numel())

    def _add(self, sent_bytes: int) -> None:
        self._timeline.pushed_bytes[self._neighbor] += sent_bytes

    @property
    def pushes(self) -> bool:
        return self._link.pushes

    def next(self, size: int) -> Tensor:
        return self._link.next(size)

    def poll(self, size: int) -> Tensor | None:
        return self._link.poll(size)

    def has_room(self) -> bool:
        return self._link.has_room()

    def window(self, size: int) -> Window | None:
        if (window := self._link.window(size)) is not None:
            window.tell = self._add
        return window

    def put(self, frame: Tensor) -> None:
        self._count(frame)
        self._link.put(frame)

    def is_through(self, frame: Tensor) -> bool:
        return self._link.is_through(frame)

    def settle(self, timeout_s: float) -> None:
        self._link.settle(timeout_s)

    def release(self, frame: Tensor) -> None:
        self._link.release(frame)

    def close(self) -> None:
        self._link.close()


class TracedDriver(Watching):
    """A driver of one node whose rounds are spans, and in them all that the node's step asks for and does itself."""

    def __init__(self, driver: Driver, timeline: Timeline) -> None:
        super().__init__(driver)
        (self._node,) = self.hosted
        self._timeline = timeline
        self._under_way: dict[Ticket, Span] = {}
        self._free = False  # whether each node steps at its own pace
        self._letters: Counter[tuple[bool, int]] = Counter()  # of this round, sent to a neighbor or come from it
        self._letter_bytes: Counter[int] = Counter()  # to each neighbor so far

    def advance(self, steps: Mapping[int, Step], round: int) -> dict[int, Tensor]:
        self._timeline.begin_round(round)
        self._letters.clear()
        began = perf_counter_ns()
        try:
            return self._driver.advance({self._node: self._watched(steps[self._node])}, round)
        finally:
            self._timeline.add("round", began, perf_counter_ns())

    def run_free(self, run: FreeRun) -> None:
        self._free = True
        self._letters.clear()
        watched = TracedRun(run, self._timeline, self._watched)
        try:
            self._driver.run_free(watched)
        finally:
            watched.note()

    def _watched(self, step: Step) -> Step:
        """The same step, noting what it asks for and what it does in between."""
        watching = cast(Any, self._watch(step))
        watching.__qualname__ = getattr(step, "__qualname__", "step")  # faults name it
        return cast(Step, watching)

    def _watch(self, step: Step) -> Generator[Effect[Any], Any, Tensor]:
        timeline, answer, has_received, exchanges = self._timeline, None, False, 0
        try:
            while True:
                resumed, first = perf_counter_ns(), len(timeline.current)
                try:
                    asked = step.send(answer)
                except StopIteration as done:
                    self._own(resumed, perf_counter_ns(), first, has_received, sends=False)
                    return cast(Tensor, done.value)
                began = perf_counter_ns()
                sends = isinstance(asked, Exchange | Post | Mix)
                self._own(resumed, began, first, has_received, sends or isinstance(asked, Gather | Push))
                first = len(timeline.current)
                try:
                    answer = yield asked
                except GeneratorExit:
                    if isinstance(asked, Receive | Poll):  # what was waited for will not come
                        timeline.add("wait" if asked.wait else "poll", began, perf_counter_ns())
                    raise
                self._note(asked, answer, began, first, exchanges)
                exchanges += sends
                has_received = isinstance(asked, Exchange | Collect | Gather | Poll)
        finally:
            step.close()

    def _own(self, began: int, ended: int, first: int, has_received: bool, sends: bool) -> None:
        """What the step did itself: with what it has received, mixing; before it sends, making the message. The local
        optimizer's steps in it are on the timeline already, from index `first` on.
        """
        category: Category | None = "mix" if has_received else "encode" if sends else None
        if category is None:
            return
        for span in self._timeline.current[first:]:
            self._timeline.add(category, began, span.began_ns)
            began = span.ended_ns
        self._timeline.add(category, began, ended)

    def _note(self, asked: Effect[Any], answer: Any, began: int, first: int, exchanges: int) -> None:
        match asked:
            case Send() | Receive():
                self._passed(asked, answer, began)
            case Push() | Poll():
                self._pushed(asked, answer or {}, began)
            case _:
                self._answered(asked, answer, began, first, exchanges)

    def _answered(self, asked: Effect[Any], answer: Any, began: int, first: int, exchanges: int) -> None:
        """Note how an effect was answered, by the sends and waits from index `first` on."""
        timeline = self._timeline
        if isinstance(asked, AllReduce | Gather):
            timeline.add("all-reduce" if isinstance(asked, AllReduce) else "gather", began, perf_counter_ns())
            return
        links = timeline.current[first:]
        if not links:
            if isinstance(asked, Post) and asked.messages.sources:  # nothing is sent, and something will come
                self._under_way[answer] = Span("exchange", timeline.round, began, began, sequence=exchanges)
            return
        if isinstance(asked, Mix):
            timeline.add("mix", links[-1].ended_ns, perf_counter_ns())
        if isinstance(asked, Exchange | Post | Mix):
            timeline.add("encode", began, links[0].began_ns)
            exchange = Span("exchange", timeline.round, links[0].began_ns, links[-1].ended_ns, sequence=exchanges)
            if isinstance(asked, Post):
                self._under_way[answer] = exchange
            else:
                timeline.put(exchange)
        elif isinstance(asked, Collect):
            timeline.put(self._under_way.pop(asked.ticket)._replace(ended_ns=links[-1].ended_ns))

    def _passed(self, asked: Send | Receive, answer: Any, began: int) -> None:
        """Note a letter; both ends number those of a round alike, and in a free run all of an edge and direction."""
        category: Category = "send" if isinstance(asked, Send) else "wait" if asked.wait else "poll"
        if isinstance(asked, Receive) and answer is None:
            self._timeline.add(category, began, perf_counter_ns())
            return
        neighbor: int = asked.to if isinstance(asked, Send) else answer.sender
        if isinstance(asked, Send):
            self._letter_bytes[neighbor] += HEADER_BYTES + payload_bytes(asked.payload)
        total_bytes = self._letter_bytes[neighbor] if isinstance(asked, Send) else 0
        number = self._letters[isinstance(asked, Send), neighbor]
        self._letters[isinstance(asked, Send), neighbor] += 1
        message = number if self._free else None
        span = Span(category, self._timeline.round, began, perf_counter_ns(), neighbor, number, total_bytes, message)
        self._timeline.put(span)

    def _pushed(self, asked: Push | Poll, arrivals: Mapping[int, Arrival], began: int) -> None:
        """Note what is handed over to each neighbor, or was found from each; both ends know the sender's step."""
        timeline, ended = self._timeline, perf_counter_ns()
        if isinstance(asked, Push):
            for neighbor in asked.to:
                sent_bytes = timeline.pushed_bytes[neighbor]
                timeline.put(Span("send", timeline.round, began, ended, neighbor, 0, sent_bytes, asked.step))
            return
        category: Category = "wait" if asked.wait else "poll"
        for neighbor, arrival in arrivals.items():
            timeline.put(Span(category, timeline.round, began, ended, neighbor, 0, 0, arrival.step))
        if not arrivals:
            timeline.add(category, began, ended)

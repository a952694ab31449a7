"""Links and drivers that note on a timeline what they do; what they do is what the wrapped ones do."""

from collections import Counter
from collections.abc import Generator, Mapping
from functools import partial
from time import perf_counter_ns
from typing import Any, cast

from torch import Tensor

from decentral.peer import AllReduce, Collect, Effect, Exchange, Gather, Mix, Post, Receive, Send, Ticket
from decentral.timeline import Category, Span, Timeline
from decentral.transport.driver import Driver, Step, Watching
from decentral.transport.frames import HEADER_BYTES, Stamp, payload_bytes
from decentral.transport.links import Finish, Link, Wait
from decentral.transport.wiring import Wires


def traced_wires(wires: Wires, timeline: Timeline) -> Wires:
    """The same wires, each link's sends and waits on the timeline."""
    timeline.links = {neighbor: link.name for neighbor, link in wires.links.items()}
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
        return self._link.send(frame)

    def next(self, size: int) -> Tensor:
        return self._link.next(size)

    def poll(self, size: int) -> Tensor | None:
        return self._link.poll(size)

    def has_room(self) -> bool:
        return self._link.has_room()

    def put(self, frame: Tensor) -> None:
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
        self._letters: Counter[tuple[Category, int]] = Counter()  # of this round, sent to a neighbor or come from it
        self._letter_bytes: Counter[int] = Counter()  # to each neighbor so far

    def advance(self, steps: Mapping[int, Step], round: int) -> dict[int, Tensor]:
        self._timeline.begin_round(round)
        self._letters.clear()
        began = perf_counter_ns()
        try:
            return self._driver.advance({self._node: self._watched(steps[self._node])}, round)
        finally:
            self._timeline.add("round", began, perf_counter_ns())

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
                self._own(resumed, began, first, has_received, sends or isinstance(asked, Gather))
                first = len(timeline.current)
                answer = yield asked
                if isinstance(asked, Send | Receive):
                    self._passed(asked, answer, began)
                else:
                    self._answered(asked, answer, began, first, exchanges)
                exchanges += sends
                has_received = isinstance(asked, Exchange | Collect | Gather)
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
        """Note a letter; both ends number those of a round alike."""
        category: Category = "send" if isinstance(asked, Send) else "wait"
        neighbor: int = asked.to if isinstance(asked, Send) else answer.sender
        if isinstance(asked, Send):
            self._letter_bytes[neighbor] += HEADER_BYTES + payload_bytes(asked.payload)
        total_bytes = self._letter_bytes[neighbor] if isinstance(asked, Send) else 0
        place = neighbor, self._letters[category, neighbor]
        self._letters[category, neighbor] += 1
        self._timeline.put(Span(category, self._timeline.round, began, perf_counter_ns(), *place, total_bytes))

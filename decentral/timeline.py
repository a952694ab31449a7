"""What one rank did when: spans on its own clock, those of the last rounds kept in memory until the run ends.

Whoever is to be seen is wrapped where it is made (a link, the driver, the objective, the optimizer), and notes here
when it began and ended. A run without a timeline has no such wrappers, and so no cost.
"""

from collections import deque
from collections.abc import Callable, Iterator
from time import perf_counter_ns
from typing import Literal, NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

ROUNDS = 200
"""How many rounds are kept unless another number is asked for."""

Category = Literal[
    "round",
    "forward",
    "backward",
    "local step",
    "encode",
    "send",
    "wait",
    "poll",
    "mix",
    "all-reduce",
    "gather",
    "evaluate",
    "exchange",
    "serve",
]
"""What a rank does with its time. The rest nest in `round`, except `evaluate`, which is between rounds, and `exchange`:
from the first send of an exchange to the last arrival, whatever the rank does meanwhile. In a free run a round is a
step of the node's own, a `poll` is a look that does not wait, and `serve` is what follows the node's last step.
"""


class Span(NamedTuple):
    category: Category
    round: int  # that it belongs to; an exchange's is the round that began it
    began_ns: int
    ended_ns: int
    neighbor: int = -1  # of a send or wait
    sequence: int = -1  # of an exchange in its round; of a send or wait, among those with this neighbor in the round
    total_bytes: int = 0  # sent to the neighbor so far, headers included; of a send
    message: int | None = None  # what both ends call it in free runs, in place of the round and the sequence


class Timeline:
    """Spans of one rank, added by one thread.

    Args:
        node: of this rank.
        rounds: how many of the last rounds are kept.

    Attributes:
        began_ns: when recording began, by this process's clock, `time.perf_counter_ns`.
        round: the current one.
        rounds_seen: how many have begun so far.
        current: the spans since the current round began, to be read only.
        links: by neighbor, how it is linked.
        pushed_bytes: by neighbor, of letters and pushes, counted by the threads that send them.
    """

    def __init__(self, node: int, rounds: int = ROUNDS) -> None:
        self.node = node
        self.began_ns = perf_counter_ns()
        self.round = 0
        self.rounds_seen = 0
        self.current: list[Span] = []
        self.links: dict[int, str] = {}
        self.pushed_bytes: dict[int, int] = {}
        self._kept = deque([self.current], maxlen=rounds)

    @property
    def dropped_rounds(self) -> int:
        """Rounds that were recorded and are no longer kept."""
        return self.rounds_seen - min(self.rounds_seen, self._kept.maxlen or 0)

    def begin_round(self, round: int) -> None:
        """What follows belongs to this round; what came before the first round counts with the first."""
        if self.rounds_seen:
            self.current = []
            self._kept.append(self.current)
        self.rounds_seen += 1
        self.round = round

    def add(self, category: Category, began_ns: int, ended_ns: int) -> None:
        """A span of the current round."""
        self.current.append(Span(category, self.round, began_ns, ended_ns))

    def put(self, span: Span) -> None:
        """A span with all that is known of it."""
        self.current.append(span)

    def spans(self) -> Iterator[Span]:
        """What is kept, in the order in which it ended."""
        for spans in self._kept:
            yield from spans

    def timed(self, category: Category, work: Callable[P, R]) -> Callable[P, R]:
        """The same work, each call a span."""

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            began = perf_counter_ns()
            try:
                return work(*args, **kwargs)
            finally:
                self.add(category, began, perf_counter_ns())

        return call

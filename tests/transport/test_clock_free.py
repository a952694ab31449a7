"""Free runs in virtual time, against times worked out by hand: pushes, letters, losses, outages, and who starves."""

import json
from collections.abc import Callable, Coroutine
from io import StringIO
from itertools import count
from math import inf
from typing import Any

import pytest
import torch
from torch import Tensor

from decentral.errors import ConfigError
from decentral.peer import LAST, Arrival, Gradient, LossAndGradient, Now, Payload, Poll, Push, Receive, Send
from decentral.seeding import stream
from decentral.transport.clock import Away, EventLog, FreeInTime, Recorded, Slowed, Spells, VirtualTime, Wire
from decentral.transport.driver import FreeRun, Step
from decentral.transport.lockstep import DeadlockError

LOSS = torch.zeros(())
FRAME = 64 + 16
LIKE: Payload = (torch.zeros(2, dtype=torch.float64),)
KINDS = (LIKE,)


def numbers(*values: float) -> Payload:
    return (torch.tensor(values, dtype=torch.float64),)


class Run(FreeRun):
    """Each node takes the steps that `step(node, number)` makes; None ends it."""

    is_timed = False

    def __init__(self, step: Callable[[int, int], Coroutine[Any, Any, Tensor] | None], nodes: int) -> None:
        self._step = step
        self.ended: list[list[float]] = [[] for _ in range(nodes)]
        self.rejoined: list[int] = []

    def begin(self, node: int, now_s: float) -> Step | None:
        return self._step(node, len(self.ended[node]))

    def end(self, node: int, loss: Tensor, now_s: float) -> None:
        self.ended[node].append(now_s)

    async def _nothing(self) -> Tensor:
        return LOSS

    def serve(self, node: int) -> Step:
        return self._nothing()

    def look_s(self) -> float:
        return inf

    def look(self, now_s: float) -> None: ...

    def rejoin(self, node: int, now_s: float) -> tuple[int, int] | None:
        self.rejoined.append(node)
        return 0, 100


def played(
    step: Callable[[int, int], Coroutine[Any, Any, Tensor] | None], time: VirtualTime, starving: int = 1000
) -> tuple[Run, FreeInTime]:
    driver = FreeInTime([lambda x: LossAndGradient(LOSS, x)] * len(time.gradient_s), time, starving)
    run = Run(step, len(time.gradient_s))
    driver.run_free(run)
    return run, driver


async def compute() -> None:
    await Gradient(torch.zeros(2))


class Draws:
    """Losses to order."""

    def __init__(self, numbers: list[float]) -> None:
        self._numbers = iter(numbers)

    def random(self) -> float:
        return next(self._numbers, 1.0)


@pytest.mark.parametrize("adds", [False, True])
def test_a_push_takes_the_place_of_one_that_has_not_left_or_been_looked_at_or_is_added_to_it(adds: bool) -> None:
    """Node 0 pushes 1, 2, 3, ... at 1, 2, 3, ... s over a link that takes each for 2.5 s; node 1 looks every 10 s."""
    seen: list[tuple[float, Arrival]] = []

    def step(node: int, number: int) -> Coroutine[Any, Any, Tensor] | None:
        async def push() -> Tensor:
            await compute()
            payload = numbers(number + 1, 1)
            await Push({1: payload}, LIKE, number, adds)
            payload[0].zero_()  # it may change at once
            return LOSS

        async def poll() -> Tensor:
            await compute()
            arrivals = await Poll(LIKE)
            seen.append((await Now(), arrivals[0]))
            return LOSS

        if number == (12 if node == 0 else 2):
            return None
        return push() if node == 0 else poll()

    _, driver = played(step, VirtualTime([1.0, 10.0], lambda i, j: Wire(0.25, FRAME / 2.5)))
    (first_s, first), (second_s, second) = seen
    # Leave at 1, 3.5 (3), 6 (6: at that instant the 6th is still to be pushed, so 5), 8.5 (8), 11 (10 or 11), ...
    assert (first_s, second_s) == (10.0, 20.0)
    assert first.at_s == 8.75
    assert second.at_s <= 20.0
    if adds:
        total = [first.payload[0][i] + second.payload[0][i] for i in range(2)]
        assert total == [sum(range(1, 13)), 12]
    else:
        assert first.payload[0].tolist() == [first.step + 1, 1]
        assert second.payload[0].tolist() == [12, 1]
    assert driver.bytes_sent[0] < 12 * FRAME


def test_who_looks_at_one_instant_sees_what_all_have_pushed_by_then_and_nothing_of_what_they_push_after() -> None:
    seen: dict[int, list[list[int]]] = {0: [], 1: [], 2: []}

    def step(node: int, number: int) -> Coroutine[Any, Any, Tensor] | None:
        async def one() -> Tensor:
            await compute()
            await Push({j: LIKE for j in range(3) if j != node}, LIKE, number)
            seen[node].append([arrival.step for arrival in (await Poll(LIKE)).values()])
            await Push({j: LIKE for j in range(3) if j != node}, LIKE, 100 + number)
            return LOSS

        return one() if number < 3 else None

    played(step, VirtualTime([1.0] * 3, lambda i, j: Wire()))
    assert all(steps == [[0, 0], [1, 1], [2, 2]] for steps in seen.values())


def test_what_was_lost_is_sent_again_and_what_came_twice_is_dropped() -> None:
    """Of the first letter the first copy is lost, of the second the first acknowledgment."""
    text = StringIO()
    draws = Draws(
        [0.0, 1.0, 1.0, 1.0, 0.0]
    )  # the first: lost, comes, acknowledged; the second: comes, not acknowledged
    wire = Wire(0.5, inf, loss=0.5, retransmit_s=2.0)
    time = VirtualTime([1.0, 1.0], lambda i, j: wire, draws=lambda i, j: draws, log=EventLog(text))
    came: list[tuple[float, float]] = []

    def step(node: int, number: int) -> Coroutine[Any, Any, Tensor] | None:
        async def send() -> Tensor:
            for n in range(3):
                await Send(1, numbers(n, 0), KINDS)
            return LOSS

        async def receive() -> Tensor:
            letter = await Receive(KINDS)
            assert letter is not None
            came.append((float(letter.payload[0][0]), await Now()))
            return LOSS

        if number == (1 if node == 0 else 3):
            return None
        return send() if node == 0 else receive()

    _, driver = played(step, time)
    # The first comes at 2.5 s and frees the link at 3; the second comes then at 3.5, again at 5.5, and frees it at 6.
    assert came == [(0.0, 2.5), (1.0, 3.5), (2.0, 6.5)]
    assert driver.bytes_sent[0] == 5 * FRAME
    told = [json.loads(line) for line in text.getvalue().splitlines()]
    assert [(line["at_s"], line["number"]) for line in told if line["event"] == "duplicate"] == [(5.5, 1)]
    assert [line["tries"] for line in told if line["event"] == "message"] == [2, 2, 1]


def test_a_node_that_is_down_loses_its_step_and_what_it_is_sent_waits() -> None:
    """Node 1 is down from 2.5 to 5 s: of its steps of 1 s the third is lost, and begun again."""
    came: list[tuple[float, float]] = []

    def step(node: int, number: int) -> Coroutine[Any, Any, Tensor] | None:
        async def push() -> Tensor:
            await compute()
            await Push({1: LIKE}, LIKE, number)
            return LOSS

        async def poll() -> Tensor:
            await compute()
            arrivals = await Poll(LIKE)
            now_s = await Now()
            came.extend((now_s, arrival.at_s) for arrival in arrivals.values())
            return LOSS

        if number == 4:
            return None
        return push() if node == 0 else poll()

    time = VirtualTime([1.0, 1.0], lambda i, j: Wire(0.25), away={1: [Away(Spells((2.5, 5.0)))]})
    run, _ = played(step, time)
    assert run.ended == [[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 6.0, 7.0]]
    assert came == [(2.0, 1.25), (6.0, 5.0)]
    assert run.rejoined == []


def test_who_comes_back_with_a_neighbors_model_pays_for_its_way() -> None:
    def step(node: int, number: int) -> Coroutine[Any, Any, Tensor] | None:
        async def one() -> Tensor:
            await compute()
            return LOSS

        return one() if number < 3 else None

    away = {1: [Away(Spells((0.5, 2.0)), "neighbor")]}
    run, driver = played(step, VirtualTime([1.0, 1.0], lambda i, j: Wire(0.25, 100.0), away=away))
    assert run.rejoined == [1]
    assert run.ended[1] == [2.0 + 1.0 + 0.25 + 1.0, 5.25, 6.25]
    assert driver.bytes_sent == {0: 100, 1: 0}


def test_a_straggler_is_slow_while_its_spell_lasts() -> None:
    """Half as fast from 1.5 to 3.5 s, and standing still from 5 to 7."""

    def step(node: int, number: int) -> Coroutine[Any, Any, Tensor] | None:
        async def one() -> Tensor:
            await compute()
            return LOSS

        return one() if number < 5 else None

    slowed = {0: [Slowed(Spells((1.5, 3.5)), 2.0), Slowed(Spells((5.0, 7.0)), inf)]}
    run, _ = played(step, VirtualTime([1.0], lambda i, j: Wire(), slowed=slowed))
    assert run.ended == [[1.0, 2.5, 4.0, 5.0, 8.0]]


def test_spells_that_are_drawn_last_and_pause_as_long_as_they_should() -> None:
    spells = Spells.again_and_again(10.0, 40_000.0, 3.0, 1.0, stream(0, 0, "test"))
    grid = [10.0 + n * 0.125 for n in range(8 * 39_990)]
    assert sum(map(spells.during, grid)) / len(grid) == pytest.approx(0.25, abs=0.01)
    assert not spells.during(9.9)
    assert not spells.during(40_000.0)
    assert spells.next_end_s(40_000.0) == inf


def receiving() -> Callable[[int, int], Coroutine[Any, Any, Tensor] | None]:
    async def wait() -> Tensor:
        await compute()
        await Receive(KINDS)
        return LOSS

    async def work() -> Tensor:
        await compute()
        return LOSS

    return lambda node, number: wait() if node == 0 else work() if number < 60 else None


def test_a_node_that_can_never_go_on_is_named() -> None:
    with pytest.raises(DeadlockError, match=r"^no node can go on: node 0 waits for a letter since 1 s$"):
        played(receiving(), VirtualTime([1.0, 1.0], lambda i, j: Wire()))


def test_a_node_that_starves_is_named() -> None:
    with pytest.raises(DeadlockError, match=r"node 0 is starving: by 22 s it made no step while the others made \d+"):
        played(receiving(), VirtualTime([1.0, 1.0], lambda i, j: Wire()), starving=20)
    still = {0: [Slowed(Spells((0.5,)), inf)]}
    with pytest.raises(DeadlockError, match="stands still for ever in a gradient that it began at 0 s"):
        played(receiving(), VirtualTime([1.0, 1.0], lambda i, j: Wire(), slowed=still), starving=20)


def test_a_node_that_goes_down_before_it_gets_anywhere_is_named() -> None:
    """The other has made its steps long ago, so that nobody's steps tell."""
    again_and_again = {0: [Away(Spells(0.5 * end for end in count(1)))]}
    with pytest.raises(DeadlockError, match=r"node 0 is starving: by 20\.5 s it has gone down 21 times without a step"):
        played(computing(3), VirtualTime([0.75, 0.01], lambda i, j: Wire(), away=again_and_again), starving=20)
    run, _ = played(computing(30), VirtualTime([0.25, 0.25], lambda i, j: Wire(), away=again_and_again), starving=20)
    assert len(run.ended[0]) == 30, "one that makes steps in between may go down as often as it likes"


def computing(steps: int) -> Callable[[int, int], Coroutine[Any, Any, Tensor] | None]:
    async def work() -> Tensor:
        await compute()
        return LOSS

    return lambda node, number: work() if number < steps else None


def test_nodes_that_are_down_for_ever_are_named_where_they_have_steps_to_make() -> None:
    away = {0: [Away(Spells((0.5,)))]}
    with pytest.raises(DeadlockError, match="node 0 is down for ever"):
        played(receiving(), VirtualTime([1.0, 1.0], lambda i, j: Wire(), away=away))


def test_what_a_node_was_pushed_must_not_be_written_to() -> None:
    def step(node: int, number: int) -> Coroutine[Any, Any, Tensor] | None:
        async def one() -> Tensor:
            await Push({1 - node: LIKE}, LIKE, number)
            await compute()
            for arrival in (await Poll(LIKE)).values():
                arrival.payload[0].add_(1)
            return LOSS

        return one() if number < 3 else None

    with pytest.raises(RuntimeError, match="changed a payload that it had received"):
        played(step, VirtualTime([1.0, 1.0], lambda i, j: Wire()))


BAD = {
    "other shapes": (lambda: Push({1: (torch.zeros(3),)}, LIKE, 0), RuntimeError, "all payloads of an exchange"),
    "letters too": (lambda: Send(1, LIKE, KINDS), RuntimeError, "node 0 pushes and sends letters in one run"),
    "no such node": (lambda: Push({7: LIKE}, LIKE, 0), RuntimeError, "pushed to node 7, which there is not"),
}


@pytest.mark.parametrize("which", BAD)
def test_bad_pushes_are_refused(which: str) -> None:
    effect, kind, told = BAD[which]

    async def one() -> Tensor:
        await Push({1: LIKE}, LIKE, 0)
        await effect()
        return LOSS

    with pytest.raises(kind, match=told):
        played(lambda node, number: one() if number == 0 else None, VirtualTime([1.0, 1.0], lambda i, j: Wire()))


def test_a_damaged_log_is_refused_with_its_line() -> None:
    begun = '{"event":"run","nodes":2}'
    for lines, told in [
        ([], "log is empty"),
        ([begun, "{"], "log:2: no line of an event log"),
        ([begun, '{"event":"gradient","node":0}'], "log:2: no line"),
        (["[1]"], "log:1: no line"),
    ]:
        with pytest.raises(ConfigError, match=told):
            Recorded.of("log", lines)


def test_a_last_push_says_so() -> None:
    came: list[int] = []

    def step(node: int, number: int) -> Coroutine[Any, Any, Tensor] | None:
        async def one() -> Tensor:
            if node == 0:
                await Push({1: LIKE}, LIKE, LAST)
            else:
                came.extend(arrival.step for arrival in (await Poll(LIKE, wait=True)).values())
            return LOSS

        return one() if number == 0 else None

    played(step, VirtualTime([1.0, 1.0], lambda i, j: Wire(2.0)))
    assert came == [LAST]

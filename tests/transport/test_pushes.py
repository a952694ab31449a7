"""Pushes over real links, ranks as threads: the newest wins, sums lose nothing, and who pushes never waits."""

from collections.abc import Callable
from functools import partial
from threading import Event
from threading import enumerate as threads
from time import monotonic, sleep
from typing import Any

import pytest
import torch
from torch import Tensor

from decentral.peer import Arrival, Exchange, Messages, Now, Payload, Poll, Push, Send
from decentral.transport.rank import RankDriver
from decentral.transport.shared import SharedOutbox
from decentral.transport.world import World
from tests.contract.ranks import on_ranks
from tests.transport.test_rank import GRAPHS, PATIENCE_S, advance, lost, rank_driver

pytestmark = [pytest.mark.timeout(60), pytest.mark.parametrize("wire", ["gloo", "shared-memory"])]

PAIR, D = GRAPHS["pair"], 5000
LIKE: Payload = (torch.zeros(D), torch.zeros((), dtype=torch.int64))


def full(n: float) -> Payload:
    return torch.full((D,), float(n)), torch.tensor(int(n))


def push(driver: RankDriver, to: dict[int, Payload], step: int, adds: bool = False) -> None:
    driver.perform(Push(to, LIKE, step, adds))


def poll(driver: RankDriver, wait: bool = False) -> dict[int, Arrival]:
    found: Any = driver.perform(Poll(LIKE, wait))
    return dict(found)


def until(driver: RankDriver, is_there: Callable[[dict[int, Arrival]], bool]) -> dict[int, Arrival]:
    """Poll until what has come is what is waited for; the last of it."""
    began = monotonic()
    while not is_there(found := poll(driver, wait=True)):
        assert monotonic() - began < PATIENCE_S / 2
    return found


def numbers(arrival: Arrival) -> set[float]:
    return {*arrival.payload[0].tolist(), float(arrival.payload[1])}


def test_the_newest_is_found_with_its_sender_s_step_and_nothing_is_found_twice(wire: str) -> None:
    is_through = Event()

    def work(world: World) -> tuple[list[int], float, int]:
        driver, steps = rank_driver(world, PAIR), list[int]()
        if world.rank:
            assert poll(driver) == {}
            assert is_through.wait(PATIENCE_S)
            sleep(0.1)
            while not steps or steps[-1] < 40:
                found = poll(driver, wait=True)[0]
                assert numbers(found) == {float(found.step)}  # no frame is half one step's and half another's
                steps.append(found.step)
            after_s = driver.perform(Now())
            assert isinstance(after_s, float)
            assert poll(driver) == {}
            driver.close()
            return steps, after_s - found.at_s, 0
        payload = full(0)
        for step in range(1, 41):
            payload[0].fill_(step)
            payload[1].fill_(step)
            push(driver, {1: payload}, step)
        payload[0].fill_(-1)  # it has been copied
        is_through.set()
        driver.close()
        return [], 0.0, driver.bytes_sent[0]

    (*_, sent), (steps, ago_s, _) = on_ranks(2, work, wire=wire)
    assert steps == sorted(set(steps))
    assert steps[-1] == 40
    assert len(steps) < 40  # who looks late finds the newest alone
    assert 0 <= ago_s < PATIENCE_S
    frame = 64 + 4 * D + 8
    assert sent % frame == 0
    assert len(steps) <= sent // frame <= 40


def test_a_push_to_a_node_that_takes_nothing_never_waits_and_holds_up_no_other(wire: str) -> None:
    """Node 2 looks at nothing until the others are through: nothing reads its links. Symptom of a driver that sent in
    the node's own thread: it stood still at the third push.
    """
    is_through = Event()

    def work(world: World) -> Any:
        driver = rank_driver(world, GRAPHS["complete"])
        others = [j for j in range(3) if j != world.rank]
        if world.rank == 2:
            assert is_through.wait(PATIENCE_S / 2)
            found = until(driver, lambda found: 0 in found and found[0].step == 300)[0]
            assert numbers(found) == {300.0}
        elif world.rank == 1:
            assert numbers(until(driver, lambda found: 0 in found and found[0].step == 300)[0]) == {300.0}
            is_through.set()
        else:
            for step in range(1, 301):
                push(driver, dict.fromkeys(others, full(step)), step)
        (line,) = (line for line in driver._pushes._lines.values() if line.neighbor == others[0])
        outbox = line.outbox
        frames = len(outbox._slots) if isinstance(outbox, SharedOutbox) else sum(map(len, outbox._free.values()))
        driver.close()
        return frames

    assert max(on_ranks(3, work, wire=wire)) <= 14  # of the same few frames, whatever is pushed


def test_what_adds_is_under_way_late_and_not_lost(wire: str) -> None:
    """Two nodes push sums to one that looks now and then; whatever was replaced, all of it arrives."""
    counts = (37, 53)

    def work(world: World) -> float:
        driver, total = rank_driver(world, GRAPHS["star"].subgraph([0, 1, 2]).copy()), torch.zeros(D)
        if world.rank:
            for step in range(counts[world.rank - 1]):
                push(driver, {0: full(world.rank)}, step, adds=True)
        else:
            wanted = float(counts[0] + 2 * counts[1])
            while total[0] < wanted:
                for arrival in poll(driver, wait=True).values():
                    total += arrival.payload[0]
                    sleep(0.01)
            assert poll(driver) == {}
        driver.close()
        assert total.eq(total[0]).all()
        return float(total[0])

    assert on_ranks(3, work, wire=wire)[0] == counts[0] + 2 * counts[1]


def test_what_was_taken_lives_until_another_of_the_same_neighbor_is(wire: str) -> None:
    taken, pushed = Event(), Event()

    def work(world: World) -> list[set[float]]:
        driver, seen = rank_driver(world, PAIR), list[set[float]]()
        if world.rank:
            first = until(driver, lambda found: 0 in found)[0]
            taken.set()
            assert pushed.wait(PATIENCE_S)
            sleep(0.1)
            seen.append(numbers(first))
            seen.append(numbers(until(driver, lambda found: found[0].step == 30)[0]))
        else:
            push(driver, {1: full(1)}, 1)
            assert taken.wait(PATIENCE_S)
            for step in range(2, 31):
                push(driver, {1: full(step)}, step)
            pushed.set()
        driver.close()
        return seen

    assert on_ranks(2, work, wire=wire)[1] == [{1.0}, {30.0}]


def test_a_neighbor_that_fails_is_noticed_at_the_next_push_or_poll(wire: str) -> None:
    def work(world: World) -> list[str]:
        driver = rank_driver(world, PAIR)
        try:
            if world.rank:

                async def fail() -> Tensor:
                    await Poll(LIKE)
                    raise ValueError("here")

                with pytest.raises(ValueError, match="here"):
                    advance(driver, fail())
                return []
            told = [lost(partial(poll, driver, wait=True))]
            return [*told, lost(partial(push, driver, {1: full(1)}, 1)), lost(partial(poll, driver))]
        finally:
            driver.close()

    waited, pushing, polling = on_ranks(2, work, wire=wire)[0]
    assert waited.startswith("node 0 lost node 1: connection closed (Poll, ")
    assert pushing.startswith("node 0 lost node 1: connection closed (Push, ")
    assert polling == waited


def test_a_farewell_in_peace_is_no_fault_of_who_goes_on(wire: str) -> None:
    gone = Event()

    def work(world: World) -> set[float]:
        driver, seen = rank_driver(world, PAIR, timeout_s=2.0), set[float]()
        if world.rank:
            push(driver, {0: full(7)}, 3)
            Event().wait(0.1)
            gone.set()
        else:
            assert gone.wait(PATIENCE_S)
            seen = numbers(until(driver, lambda found: 1 in found)[1])
            push(driver, {1: full(1)}, 0)
        driver.close()
        return seen

    assert on_ranks(2, work, wire=wire)[0] == {7.0}


def test_who_waits_in_vain_says_so(wire: str) -> None:
    over = Event()

    def work(world: World) -> str:
        driver = rank_driver(world, PAIR, timeout_s=0.3)
        try:
            if world.rank:
                over.wait(PATIENCE_S)
                return ""
            return lost(partial(poll, driver, wait=True))
        finally:
            over.set()
            driver.close()

    told = on_ranks(2, work, wire=wire)[0]
    assert told.startswith("node 0 waited 0.3 s for what any of its neighbors pushes: no answer (Poll, ")


def test_what_no_node_could_tell_apart_is_refused(wire: str) -> None:
    def work(world: World) -> str:
        driver, other = rank_driver(world, PAIR), 1 - world.rank
        told = ""
        if world.rank:
            driver._pushes._run += 1
            push(driver, {other: full(1)}, 0)
        else:
            told = lost(partial(poll, driver, wait=True))
        with pytest.raises(RuntimeError, match="pushes, and sends letters or exchanges, in one run"):
            driver.perform(Send(other, LIKE, (LIKE,)))
        with pytest.raises(RuntimeError, match="pushes, and sends letters or exchanges, in one run"):
            driver.perform(Exchange(Messages.alike(LIKE, (other,), (other,))))
        driver.close()
        return told

    told = on_ranks(2, work, wire=wire)[0]
    assert told.startswith("node 0 lost node 1: run 2, expected 1; start every node with the same experiment (Poll, ")


def test_no_thread_is_left(wire: str) -> None:
    def work(world: World) -> None:
        driver = rank_driver(world, PAIR)
        push(driver, {1 - world.rank: full(1)}, 0)
        until(driver, bool)
        driver.close()

    on_ranks(2, work, wire=wire)
    assert [thread.name for thread in threads() if thread.name.startswith("pushes")] == []

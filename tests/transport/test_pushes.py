"""Pushes over real links, ranks as threads: the newest wins, sums lose nothing, and who pushes never waits."""

from collections.abc import Callable
from functools import partial
from threading import Event
from threading import enumerate as threads
from time import monotonic, sleep
from typing import Any, TypeVar

import networkx as nx
import pytest
import torch

from decentral.peer import Arrival, Exchange, Messages, Now, Payload, Poll, Push, Send
from decentral.transport.rank import RankDriver
from decentral.transport.shared import SharedOutbox
from decentral.transport.world import World
from tests.contract.ranks import on_ranks
from tests.transport.test_rank import PATIENCE_S, lost, rank_driver

pytestmark = [pytest.mark.timeout(60), pytest.mark.parametrize("wire", ["gloo", "shared-memory"])]

T = TypeVar("T")
D = 5000
LIKE: Payload = (torch.zeros(D), torch.zeros((), dtype=torch.int64))
FRAME = 64 + 4 * D + 8


def on_drivers(nodes: int, work: Callable[[RankDriver, int], T], wire: str, timeout_s: float = PATIENCE_S) -> list[T]:
    """`work(driver, rank)` on each rank of a complete graph; who fails says farewell too, so that nobody waits."""

    def run(world: World) -> T:
        driver = rank_driver(world, nx.complete_graph(nodes), timeout_s=timeout_s)
        try:
            return work(driver, world.rank)
        except BaseException:
            driver._failed = True
            raise
        finally:
            driver.close()

    return on_ranks(nodes, run, wire=wire)


def full(n: float) -> Payload:
    return torch.full((D,), float(n)), torch.tensor(int(n))


def push(driver: RankDriver, to: int, payload: Payload, step: int = 0, adds: bool = False) -> None:
    driver.perform(Push({to: payload}, LIKE, step, adds))


def poll(driver: RankDriver, wait: bool = False) -> dict[int, Arrival]:
    found: Any = driver.perform(Poll(LIKE, wait))
    return dict(found)


def until(driver: RankDriver, sender: int, step: int) -> Arrival:
    """Poll until what a sender has pushed in a step is there."""
    began = monotonic()
    while (found := poll(driver, wait=True)).get(sender, Arrival((), -1, 0)).step != step:
        assert monotonic() - began < PATIENCE_S / 2
    return found[sender]


def numbers(arrival: Arrival) -> set[float]:
    return {*arrival.payload[0].tolist(), float(arrival.payload[1])}


def test_the_newest_is_found_with_its_sender_s_step_and_nothing_is_found_twice(wire: str) -> None:
    has_looked, is_through = Event(), Event()

    def work(driver: RankDriver, rank: int) -> Any:
        if not rank:
            assert has_looked.wait(PATIENCE_S)
            payload = full(0)
            for step in range(1, 41):
                for tensor in payload:
                    tensor.fill_(step)
                push(driver, 1, payload, step)
            payload[0].fill_(-1)  # it has been copied
            is_through.set()
            return driver
        steps = list[int]()
        assert poll(driver) == {}
        has_looked.set()
        assert is_through.wait(PATIENCE_S)
        sleep(0.1)
        while not steps or steps[-1] < 40:
            found = poll(driver, wait=True)[0]
            assert numbers(found) == {float(found.step)}  # no frame is half one step's and half another's
            steps.append(found.step)
        assert poll(driver) == {}
        now_s = driver.perform(Now())
        assert isinstance(now_s, float)
        assert 0 < found.at_s <= now_s
        return steps

    sender, steps = on_drivers(2, work, wire)
    assert steps == sorted(set(steps))
    assert len(steps) < 40  # who looks late finds the newest alone
    assert sender.bytes_sent[0] % FRAME == 0
    assert len(steps) <= sender.bytes_sent[0] // FRAME <= 40


def test_a_push_to_a_node_that_takes_nothing_never_waits_and_holds_up_no_other(wire: str) -> None:
    """Node 2 looks at nothing until the others are through, and nothing reads its links before. Symptom of a driver
    that sent in the node's own thread: it stood still at the third push.
    """
    is_through = Event()

    def work(driver: RankDriver, rank: int) -> int:
        if rank == 2:
            assert is_through.wait(PATIENCE_S / 2)
            assert numbers(until(driver, 0, 300)) == {300.0}
        elif rank == 1:
            assert numbers(until(driver, 0, 300)) == {300.0}
            is_through.set()
        else:
            for step in range(1, 301):
                driver.perform(Push(dict.fromkeys((1, 2), full(step)), LIKE, step))
        outbox = driver._pushes._lines[(rank + 1) % 3].outbox
        return len(outbox._slots) if isinstance(outbox, SharedOutbox) else sum(map(len, outbox._free.values()))

    assert max(on_drivers(3, work, wire)) <= 14  # of the same few frames, whatever is pushed


def test_what_adds_is_under_way_late_and_not_lost(wire: str) -> None:
    """Two nodes push sums to one that looks now and then; whatever was replaced, all of it arrives."""
    counts = 37, 53
    wanted = float(counts[0] + 2 * counts[1])

    def work(driver: RankDriver, rank: int) -> float:
        total = torch.zeros(D)
        if rank:
            for step in range(counts[rank - 1]):
                push(driver, 0, full(rank), step, adds=True)
            return wanted
        while total[0] < wanted:
            for arrival in poll(driver, wait=True).values():
                total += arrival.payload[0]
                sleep(0.01)
        assert poll(driver) == {}
        assert total.eq(total[0]).all()
        return float(total[0])

    assert on_drivers(3, work, wire)[0] == wanted


def test_what_was_taken_lives_until_another_of_the_same_neighbor_is(wire: str) -> None:
    taken, pushed = Event(), Event()

    def work(driver: RankDriver, rank: int) -> None:
        if rank:
            first = until(driver, 0, 1)
            taken.set()
            assert pushed.wait(PATIENCE_S)
            sleep(0.1)
            assert numbers(first) == {1.0}
            assert numbers(until(driver, 0, 30)) == {30.0}
        else:
            push(driver, 1, full(1), 1)
            assert taken.wait(PATIENCE_S)
            for step in range(2, 31):
                push(driver, 1, full(step), step)
            pushed.set()

    on_drivers(2, work, wire)


def test_a_neighbor_that_fails_is_noticed_at_the_next_push_or_poll(wire: str) -> None:
    def work(driver: RankDriver, rank: int) -> list[str]:
        if rank:
            poll(driver)
            driver._failed = True
            return []
        told = lost(partial(poll, driver, wait=True))
        return [told, lost(partial(push, driver, 1, full(1))), lost(partial(poll, driver))]

    waited, pushing, polling = on_drivers(2, work, wire)[0]
    assert waited.startswith("node 0 lost node 1: connection closed (Poll, ")
    assert pushing.startswith("node 0 lost node 1: connection closed (Push, ")
    assert polling == waited


def test_a_farewell_in_peace_is_no_fault_of_who_goes_on(wire: str) -> None:
    gone = Event()

    def work(driver: RankDriver, rank: int) -> None:
        if rank:
            push(driver, 0, full(7), 3)
            gone.set()
        else:
            assert gone.wait(PATIENCE_S)
            sleep(0.1)
            assert numbers(until(driver, 1, 3)) == {7.0}
            push(driver, 1, full(1))

    on_drivers(2, work, wire, timeout_s=5.0)


def test_who_waits_in_vain_says_so(wire: str) -> None:
    over = Event()

    def work(driver: RankDriver, rank: int) -> str:
        if rank:
            over.wait(PATIENCE_S)
            return ""
        try:
            return lost(partial(poll, driver, wait=True))
        finally:
            over.set()

    told = on_drivers(2, work, wire, timeout_s=0.3)[0]
    assert told.startswith("node 0 waited 0.3 s for what any of its neighbors pushes: no answer (Poll, ")


def test_what_no_node_could_tell_apart_is_refused(wire: str) -> None:
    def work(driver: RankDriver, rank: int) -> str:
        told, other = "", 1 - rank
        if rank:
            driver._pushes._run += 1
            push(driver, other, full(1))
        else:
            told = lost(partial(poll, driver, wait=True))
        for asked in (Send(other, LIKE, (LIKE,)), Exchange(Messages.alike(LIKE, (other,), (other,)))):
            with pytest.raises(RuntimeError, match="pushes, and sends letters or exchanges, in one run"):
                driver.perform(asked)
        return told

    told = on_drivers(2, work, wire)[0]
    assert told.startswith("node 0 lost node 1: run 2, expected 1; start every node with the same experiment (Poll, ")


def test_no_thread_is_left(wire: str) -> None:
    def work(driver: RankDriver, rank: int) -> None:
        push(driver, 1 - rank, full(1), 1)
        until(driver, 1 - rank, 1)

    on_drivers(2, work, wire)
    assert [thread.name for thread in threads() if thread.name.startswith("pushes")] == []

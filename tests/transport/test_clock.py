"""Virtual time, against times worked out by hand; the models stay those of the lockstep simulator, bit for bit."""

from collections.abc import Callable, Coroutine
from math import inf
from typing import Any

import pytest
import torch
from torch import Tensor

from decentral.algorithms import ALGORITHMS, TOKEN_METHODS
from decentral.algorithms.algorithm import Algorithm
from decentral.peer import Gradient, Letter, LossAndGradient, Payload, Receive, Send
from decentral.seeding import stream
from decentral.transport.clock import ExchangesInTime, LettersInTime, Slowed, Spells, VirtualTime, Wire
from decentral.transport.driver import Driver
from decentral.transport.lockstep import DeadlockError, LockstepDriver
from tests.contract.problems import DIMENSION, Quadratics, graph
from tests.contract.runs import Run, play, same, sgd, simulate

LOSS = torch.zeros(())
KINDS: tuple[Payload, ...] = ((torch.zeros(2, dtype=torch.float64),),)
FRAME = 64 + 16
Steps = Callable[[int], Coroutine[Any, Any, Tensor]]


def in_time(time: VirtualTime) -> LettersInTime:
    return LettersInTime([lambda x: LossAndGradient(LOSS, x)] * len(time.gradient_s), time)


def advance(driver: Driver, step: Steps, round: int = 0) -> None:
    driver.advance({node: step(node) for node in driver.hosted}, round)


def test_letters_come_in_the_order_of_virtual_time_and_queue_on_their_link() -> None:
    """Node 1 is slow to send and its link is slow; two letters of node 2 follow each other over one link."""
    wires = {(1, 0): Wire(2.0), (2, 0): Wire(0.5, FRAME / 2.0)}
    driver = in_time(VirtualTime([0.0, 1.0, 0.25], lambda i, j: wires[i, j]))
    came: list[tuple[int, float]] = []

    async def step(node: int) -> Tensor:
        if node:
            await Gradient(torch.zeros(2))
            for n in range(node):
                await Send(0, (torch.full((2,), float(n), dtype=torch.float64),), KINDS)
            return LOSS
        for _ in range(3):
            letter: Letter = await Receive(KINDS)
            came.append((letter.sender, float(letter.payload[0][0])))
        return LOSS

    advance(driver, step)
    assert came == [(2, 0.0), (1, 0.0), (2, 1.0)]
    assert driver.clock() == 0.25 + 2 + 2 + 0.5, "of node 0, that waits for the second of node 2"
    assert driver._time.now_s == [4.75, 1.0, 0.25], "who sends does not wait"
    assert driver.bytes_sent == {0: 0, 1: FRAME, 2: 2 * FRAME}


def test_a_nodes_own_connection_is_shared_by_its_links() -> None:
    """Nodes 0 and 3 send to 1 and 2: each sends one message after the other, and each takes in one after the other."""
    time = VirtualTime([0.0] * 4, lambda i, j: Wire(0.5), node_bytes_s=FRAME / 2.0)
    assert [time.transfer(0, to, FRAME, 1.0).arrivals_s for to in (1, 2)] == [(3.5,), (5.5,)]
    assert [time.transfer(3, to, FRAME, 1.0).arrivals_s for to in (1, 2)] == [(5.5,), (7.5,)]
    assert time.transfer(1, 0, FRAME, 1.0).arrivals_s == (3.5,), "what it takes in does not hold up what it sends"
    assert time.all_reduce_s([0, 1, 2, 3], FRAME) == 6 * (0.5 + 0.5)


def test_a_link_may_be_slower_than_the_connections_at_its_ends() -> None:
    wires = {(0, 1): Wire(0.0, FRAME / 4.0)}
    time = VirtualTime([0.0] * 3, lambda i, j: wires.get((i, j), Wire()), node_bytes_s=FRAME / 2.0)
    assert time.transfer(0, 1, FRAME, 0.0).arrivals_s == (4.0,)
    assert time.transfer(0, 2, FRAME, 0.0).arrivals_s == (6.0,), "after the one before"
    assert time.all_reduce_s([0, 1], FRAME) == 2 * 2.0


def test_when_a_letter_comes_is_when_it_is_answered() -> None:
    time = VirtualTime([1.0, 1.0], lambda i, j: Wire(0.5, FRAME / 2.0))
    driver = in_time(time)

    async def step(node: int) -> Tensor:
        for _ in range(2):
            await Send(1 - node, (torch.zeros(2, dtype=torch.float64),), KINDS)
        await Receive(KINDS)
        await Gradient(torch.zeros(2))
        return LOSS

    advance(driver, step)
    assert time.now_s == [3.5, 3.5]  # 2 s on the wire, 0.5 s of latency, and the gradient; the second came meanwhile


def test_a_deadlock_names_who_waits_and_since_when() -> None:
    driver = in_time(VirtualTime([0.5, 2.0], lambda i, j: Wire()))

    async def step(node: int) -> Tensor:
        await Gradient(torch.zeros(2))
        if node == 0:
            await Receive(KINDS)
        return LOSS

    with pytest.raises(DeadlockError, match=r"round 4: no node can go on: node 0 waits for a letter since 0.5 s$"):
        advance(driver, step, 4)


def run(algorithm: Algorithm, on: str, rounds: int, time: VirtualTime) -> tuple[Run, Run]:
    """The same rounds in lockstep and in time."""
    problem = Quadratics.draw(graph(on).nodes, noisy_rounds=rounds)
    start = torch.from_numpy(problem.starts()[:1]).repeat(problem.nodes, 1)
    walks = type(algorithm) in TOKEN_METHODS.values()
    timed: Driver = (
        LettersInTime(problem.answers(), time) if walks else ExchangesInTime(LockstepDriver(problem.answers()), time)
    )
    found = play(algorithm, timed, graph(on), start, rounds)
    assert timed.clock() == time.seconds
    return simulate(algorithm, graph(on), problem.answers(), start, rounds), found


def test_a_token_takes_a_gradient_and_a_hop_at_each_visit_and_its_notice_there_and_back() -> None:
    time = VirtualTime([1.0, 3.0], lambda i, j: Wire(0.125))
    algorithm = TOKEN_METHODS["mcgd"](local=sgd(0.05), kernel="simple", visits=6).on(graph("path-2"))
    alike, found = run(algorithm, "path-2", 1, time)
    assert time.seconds == 3 * 1.0 + 3 * 3.0 + 6 * 0.125 + 2 * 0.125
    assert all(same(alike.states[node], found.states[node]) for node in alike.states)
    assert alike.bytes_sent == found.bytes_sent


@pytest.mark.parametrize("settings", [{"visits": 7}, {"tokens": 5}, {"tokens": 4, "meeting": "average"}])
def test_walking_models_are_those_of_lockstep(settings: dict[str, Any]) -> None:
    time = VirtualTime([0.1 * (node % 3) for node in range(8)], lambda i, j: Wire(0.01 * (1 + i), 1e4))
    algorithm = TOKEN_METHODS["mcgd"](local=sgd(0.05), **settings).on(graph("ring-8"))
    alike, found = run(algorithm, "ring-8", 6, time)
    assert all(same(alike.states[node], found.states[node]) for node in alike.states)


def test_a_token_that_is_lost_is_sent_again_and_there_are_never_two() -> None:
    wire = Wire(0.25, loss=0.4, retransmit_s=1.0)
    time = VirtualTime([1.0] * 8, lambda i, j: wire, draws=lambda i, j: stream(0, i, f"losses to {j}"))
    alike, found = run(TOKEN_METHODS["mcgd"](local=sgd(0.05), visits=5).on(graph("ring-8")), "ring-8", 6, time)
    assert all(same(alike.states[node], found.states[node]) for node in alike.states)
    assert sum(len(state.held) for state in found.states.values()) == 1  # type: ignore[attr-defined]
    assert sum(found.bytes_sent.values()) > 1.3 * sum(alike.bytes_sent.values())
    assert time.seconds > 30 + 30 * 0.25


def test_an_exchange_whose_messages_are_lost_takes_longer_and_brings_the_same() -> None:
    wire = Wire(0.25, loss=0.4, retransmit_s=1.0)
    time = VirtualTime([1.0] * 8, lambda i, j: wire, draws=lambda i, j: stream(0, i, f"losses to {j}"))
    alike, found = run(ALGORITHMS["dsgd"](local=sgd(0.05)), "ring-8", 10, time)
    assert all(same(alike.states[node], found.states[node]) for node in alike.states)
    assert time.seconds > 10 * 1.25 + 5
    assert sum(found.bytes_sent.values()) > 1.3 * sum(alike.bytes_sent.values())


def test_who_stands_still_for_ever_is_named_where_all_wait_for_it() -> None:
    slowed = {3: [Slowed(Spells((2.5,)), inf)]}
    time = VirtualTime([1.0] * 8, lambda i, j: Wire(), slowed=slowed)
    with pytest.raises(DeadlockError, match="node 3 stands still for ever in a gradient that it began at 2 s"):
        run(ALGORITHMS["dsgd"](local=sgd(0.05)), "ring-8", 5, time)


VECTOR = DIMENSION * 8
ORDERS = {
    "adapt-then-combine": 1.0 + (64 + VECTOR) / 1e3 + 0.5,
    "adapt-while-communicate": max(1.0, (64 + VECTOR) / 1e3 + 0.5),
}


@pytest.mark.parametrize("order", ORDERS)
def test_gossip_takes_the_gradient_and_the_message_or_the_longer_of_them(order: str) -> None:
    time = VirtualTime([1.0] * 8, lambda i, j: Wire(0.5, 1e3))
    algorithm = ALGORITHMS["dsgd"](local=sgd(0.05), order=order)  # type: ignore[call-arg]
    alike, found = run(algorithm, "ring-8", 5, time)
    assert time.seconds == pytest.approx(5 * ORDERS[order])
    assert all(same(alike.states[node], found.states[node]) for node in alike.states)


def test_one_slow_node_holds_up_its_neighbors_first() -> None:
    time = VirtualTime([9.0] + [1.0] * 7, lambda i, j: Wire())
    run(ALGORITHMS["dsgd"](local=sgd(0.05)), "ring-8", 2, time)
    assert time.now_s == [18.0, 18.0, 10.0, 2.0, 2.0, 2.0, 10.0, 18.0]


def test_an_all_reduce_waits_for_all_and_takes_its_hops() -> None:
    time = VirtualTime([1.0, 2.0, 1.0, 1.0], lambda i, j: Wire(0.25, 1e3))
    run(ALGORITHMS["allreduce"](local=sgd(0.05)), "path-4", 3, time)
    assert time.seconds == pytest.approx(3 * (2.0 + 6 * (0.25 + VECTOR / 4 / 1e3)))

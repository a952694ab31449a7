"""Letters over real links, ranks as threads: what arrives from whom, in which round, and how each fault is told."""

from collections.abc import Callable
from functools import partial
from threading import Event
from time import monotonic
from typing import Any

import networkx as nx
import pytest
import torch
from torch import Tensor

from decentral.peer import Exchange, Letter, Messages, Payload, Receive, Send
from decentral.transport.rank import RankDriver
from decentral.transport.shared import SharedOutbox
from decentral.transport.world import World
from tests.contract.ranks import on_ranks
from tests.transport.test_rank import GRAPHS, LOSS, PATIENCE_S, advance, lost, rank_driver

pytestmark = [pytest.mark.timeout(60), pytest.mark.parametrize("wire", ["gloo", "shared-memory"])]

BIG, SMALL = (torch.zeros(5000),), (torch.zeros((), dtype=torch.int64),)
KINDS: tuple[Payload, ...] = BIG, SMALL
PAIR = GRAPHS["pair"]


def number(n: int) -> Payload:
    return (torch.tensor(n),)


async def numbers(count: int) -> list[tuple[int, int]]:
    """Of so many letters, who sent them, and what is in them."""
    came = []
    for _ in range(count):
        letter: Letter = await Receive(KINDS)
        came.append((letter.sender, int(letter.payload[0].double().mean())))
    return came


def test_letters_come_from_any_neighbor_each_one_s_in_order(wire: str) -> None:
    def work(world: World) -> list[tuple[int, int]]:
        driver, came = rank_driver(world, GRAPHS["star"]), list[tuple[int, int]]()

        async def step() -> Tensor:
            if world.rank == 0:
                came.extend(await numbers(60))
            else:
                for n in range(20):
                    payload = number(n) if n % 2 else (torch.full((5000,), float(n)),)
                    await Send(0, payload, KINDS)
                    payload[0].fill_(0)  # it has been copied
            return LOSS

        advance(driver, step())
        driver.close()
        return came

    came = on_ranks(4, work, wire=wire)[0]
    for sender in (1, 2, 3):
        assert [n for j, n in came if j == sender] == list(range(20))


def test_two_nodes_that_both_send_first_do_not_stop_each_other(wire: str) -> None:
    def work(world: World) -> int:
        driver = rank_driver(world, PAIR)
        came: list[Any] = []

        async def step() -> Tensor:
            for _ in range(50):
                await Send(1 - world.rank, BIG, KINDS)
            came.extend(await numbers(50))
            return LOSS

        advance(driver, step())
        driver.close()
        return len(came)

    assert on_ranks(2, work, wire=wire) == [50, 50]


def test_the_memory_of_letters_is_used_again(wire: str) -> None:
    def work(world: World) -> int:
        driver = rank_driver(world, PAIR)

        async def step() -> Tensor:
            for _ in range(30):
                if world.rank:
                    await numbers(1)
                await Send(1 - world.rank, BIG, KINDS)
                if not world.rank:
                    await numbers(1)
            return LOSS

        advance(driver, step())
        (line,) = driver._letters._lines.values()
        outbox = line.outbox
        frames = len(outbox._slots) if isinstance(outbox, SharedOutbox) else sum(map(len, outbox._free.values()))
        driver.close()
        return frames

    assert max(on_ranks(2, work, wire=wire)) <= 4


def test_a_letter_of_a_later_round_waits_until_it_begins(wire: str) -> None:
    ahead = Event()

    def work(world: World) -> list[list[tuple[int, int]]]:
        driver, came = rank_driver(world, nx.path_graph(3)), list[list[tuple[int, int]]]()

        async def step(round: int) -> Tensor:
            if world.rank == 0:  # two rounds ahead of node 2
                await Send(1, number(round), KINDS)
                if round == 1:
                    ahead.set()
            elif world.rank == 1:
                came.append(await numbers(2))
            else:
                ahead.wait(PATIENCE_S)
                await Send(1, number(10 + round), KINDS)
            return LOSS

        for round in range(2):
            advance(driver, step(round), round)
        driver.close()
        return came

    first, second = on_ranks(3, work, wire=wire)[1]
    assert sorted(first) == [(0, 0), (2, 10)]
    assert sorted(second) == [(0, 1), (2, 11)]


async def waiting() -> Tensor:
    await Receive(KINDS)
    return LOSS


def test_who_waits_in_vain_says_so(wire: str) -> None:
    over = Event()

    def work(world: World) -> str:
        driver = rank_driver(world, PAIR, timeout_s=0.5)
        try:
            if world.rank:
                over.wait(PATIENCE_S)
                return ""
            return lost(partial(advance, driver, waiting(), 3))
        finally:
            over.set()
            driver.close()

    told = on_ranks(2, work, wire=wire)[0]
    assert told.startswith("node 0 waited 0.5 s for a letter of any of its neighbors in round 3 (Receive, ")
    assert "transport.timeout_s" in told


def test_a_node_that_fails_ends_the_wait_of_its_neighbors_at_once(wire: str) -> None:
    def work(world: World) -> str:
        driver = rank_driver(world, PAIR)

        async def fail() -> Tensor:
            await Send(0, number(1), KINDS)
            raise ValueError("here")

        began = monotonic()
        try:
            if world.rank:
                with pytest.raises(ValueError, match="here"):
                    advance(driver, fail())
                return ""

            async def twice() -> Tensor:
                await numbers(2)
                return LOSS

            return lost(partial(advance, driver, twice()))
        finally:
            driver.close()
            assert monotonic() - began < PATIENCE_S / 2

    assert on_ranks(2, work, wire=wire)[0].startswith("node 0 lost node 1 in round 0 after 0.0 s: connection closed")


def test_a_farewell_in_peace_does_not_hide_what_others_send(wire: str) -> None:
    """Node 1 ends after round 0; node 0 is still in round 0 and waits for node 2. In round 1 it would wait in vain."""
    gone = Event()

    def work(world: World) -> Any:
        driver = rank_driver(world, GRAPHS["star"].subgraph([0, 1, 2]).copy())

        async def step(send: Callable[[], bool]) -> Tensor:
            if world.rank:
                if send():
                    await Send(0, number(world.rank), KINDS)
                return LOSS
            came.extend(await numbers(2))
            return LOSS

        came: list[tuple[int, int]] = []
        if world.rank == 2:
            advance(driver, step(lambda: gone.wait(PATIENCE_S)))
            advance(driver, step(lambda: False), 1)
        elif world.rank == 1:
            advance(driver, step(lambda: True))
            gone.set()
        else:
            advance(driver, step(lambda: True))
            told = lost(partial(advance, driver, waiting(), 1))
        driver.close()
        return (sorted(came), told) if not world.rank else None

    came, told = on_ranks(3, work, wire=wire)[0]
    assert came == [(1, 1), (2, 2)]
    assert told.startswith("node 0 lost node 1 in round 1 after ")


def test_a_letter_of_another_run_is_refused(wire: str) -> None:
    def work(world: World) -> str:
        driver = rank_driver(world, PAIR)
        if world.rank:
            driver._letters._run += 1

            async def send() -> Tensor:
                await Send(0, number(1), KINDS)
                return LOSS

            advance(driver, send())
        told = "" if world.rank else lost(partial(advance, driver, waiting()))
        driver.close()
        return told

    told = on_ranks(2, work, wire=wire)[0]
    assert told.startswith("node 0 refused a letter of node 1 in round 0: run 2, expected 1")


def test_what_no_node_could_receive_is_not_sent(wire: str) -> None:
    def work(world: World) -> None:
        driver = rank_driver(world, PAIR)

        async def longer() -> Tensor:
            await Send(1 - world.rank, number(1), KINDS)
            await Send(1 - world.rank, (torch.zeros(9999),), (*KINDS, (torch.zeros(9999),)))
            return LOSS

        async def both() -> Tensor:
            await Exchange(Messages.alike(BIG, (1 - world.rank,), (1 - world.rank,)))
            return LOSS

        async def stranger() -> Tensor:
            await Send(7, BIG, KINDS)
            return LOSS

        try:
            with pytest.raises(RuntimeError, match="a letter of another kind than it named with its first one"):
                advance(driver, longer())
            with pytest.raises(RuntimeError, match="sends letters and exchanges in one run"):
                advance(driver, both())
            with pytest.raises(RuntimeError, match="has no link to node 7"):
                advance(driver, stranger())
        finally:
            driver.close()

    on_ranks(2, work, wire=wire)


def test_a_driver_that_wrote_no_letter_closes_at_once(wire: str) -> None:
    def work(world: World) -> None:
        driver: RankDriver = rank_driver(world, PAIR)
        driver.close()

    on_ranks(2, work, wire=wire)

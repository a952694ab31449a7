"""Letters of a run that survives: a neighbor that dies is told of once, after all that came of it."""

import socket
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from threading import Event
from typing import Any

import networkx as nx
import pytest
import torch
from torch import Tensor

from decentral.peer import GONE, Letter, Payload, Receive, Send
from decentral.transport.gloo import GlooLink
from decentral.transport.rank import RankDriver
from decentral.transport.world import World
from tests.contract.ranks import on_ranks
from tests.transport.test_rank import LOSS, PATIENCE_S, advance, lost, rank_driver, surviving

pytestmark = [pytest.mark.timeout(60), pytest.mark.parametrize("wire", ["gloo", "shared-memory"])]

BIG, SMALL = (torch.zeros(5000),), (torch.zeros((), dtype=torch.int64),)
KINDS: tuple[Payload, ...] = BIG, SMALL
PATH = nx.path_graph(3)


def number(n: int) -> Payload:
    return (torch.tensor(n),)


def die(driver: RankDriver) -> None:
    """End a rank's links as the kernel does for a killed process: without a farewell."""
    for line in driver._letters._lines.values():
        if isinstance(line.link, GlooLink):  # a wait that runs out closes the connections of a gloo group at both ends
            with pytest.raises(RuntimeError, match="Timed out"):
                line.link._group.recv([torch.zeros(1)], line.link._other, 9).wait(timedelta(milliseconds=1))
        else:
            line.link._connection.shutdown(socket.SHUT_RDWR)
    driver._letters._inbox, driver._letters._survive = None, False  # no farewell


async def came(count: int) -> list[tuple[int, int]]:
    """Of so many letters, who sent them and what is in them: GONE where the sender is."""
    found = []
    for _ in range(count):
        letter: Letter = await Receive(KINDS)
        found.append((letter.sender, GONE if letter.kind == GONE else int(letter.payload[0].double().mean())))
    return found


def played(wire: str, work: Callable[[World, RankDriver], Any]) -> list[Any]:
    """Node 1 of a path of three, where 0 dies and 2 may write; each rank closes its driver."""

    def rank(world: World) -> Any:
        driver = rank_driver(surviving(world), PATH)
        try:
            return work(world, driver)
        finally:
            driver.close()

    return on_ranks(3, rank, wire=wire)


def test_the_news_comes_after_what_the_dead_had_sent_and_once(wire: str) -> None:
    taken, told = Event(), Event()

    def work(world: World, driver: RankDriver) -> Any:
        found: list[tuple[int, int]] = []

        async def step() -> Tensor:
            if world.rank == 0:
                for n in range(5):
                    await Send(1, number(n) if n % 2 else (torch.full((5000,), float(n)),), KINDS)
                taken.wait(PATIENCE_S)
                die(driver)
            elif world.rank == 1:
                found.extend(await came(5))
                taken.set()
                found.extend(await came(1))
                told.set()
                found.extend(await came(1))
            else:
                told.wait(PATIENCE_S)
                await Send(1, number(7), KINDS)
            return LOSS

        advance(driver, step())
        return found

    assert played(wire, work)[1] == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (0, GONE), (2, 7)]


def test_the_news_waits_for_letters_of_a_later_round(wire: str) -> None:
    ahead, dead, other = Event(), Event(), Event()

    def work(world: World, driver: RankDriver) -> Any:
        found: list[list[tuple[int, int]]] = []

        async def step(round: int) -> Tensor:
            if world.rank == 0:
                await Send(1, number(round), KINDS)
                if round == 1:
                    ahead.wait(PATIENCE_S)
                    die(driver)
                    dead.set()
            elif world.rank == 1:
                if round == 0:
                    first = await came(1)
                    while len(driver._letters._kept) + driver._letters._inbox._came.qsize() < 1:
                        pass
                    ahead.set()
                    dead.wait(PATIENCE_S)
                    other.set()
                    found.append(first + await came(1))
                else:
                    found.append(await came(2))
            elif round == 0:
                other.wait(PATIENCE_S)
                await Send(1, number(7), KINDS)
            return LOSS

        for round in range(2):
            advance(driver, step(round), round)
        return found

    assert played(wire, work)[1] == [[(0, 0), (2, 7)], [(0, 1), (0, GONE)]]


def test_what_is_sent_to_the_dead_is_dropped_and_a_death_is_known_without_waiting(wire: str) -> None:
    dead = Event()

    def work(world: World, driver: RankDriver) -> Any:
        async def step() -> Tensor:
            if world.rank == 0:
                await came(1)
                die(driver)
                dead.set()
            elif world.rank == 1:
                await Send(0, number(1), KINDS)
                dead.wait(PATIENCE_S)
                while not driver._letters.dead:
                    pass
                for _ in range(20):
                    await Send(0, BIG, KINDS)
                assert await came(1) == [(0, GONE)]
            return LOSS

        advance(driver, step())
        return driver._letters.dead

    assert played(wire, work)[1] == {0}


def test_who_says_that_it_failed_still_ends_the_run(wire: str) -> None:
    def work(world: World, driver: RankDriver) -> Any:
        async def step() -> Tensor:
            if world.rank == 0:
                await Send(1, number(1), KINDS)
                raise ValueError("here")
            await came(2)
            return LOSS

        if world.rank == 0:
            with pytest.raises(ValueError, match="here"):
                advance(driver, step())
            return ""
        return lost(partial(advance, driver, step())) if world.rank == 1 else ""

    assert played(wire, work)[1].startswith("node 1 lost node 0 in round 0")

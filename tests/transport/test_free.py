"""Free runs over real links, ranks as threads: nobody waits for the slow one, and all that was sent has arrived."""

from collections import Counter
from collections.abc import Callable, Coroutine
from functools import partial
from math import inf
from threading import Event
from time import sleep
from typing import Any

import pytest
import torch
from torch import Tensor

from decentral.errors import LostNeighborError
from decentral.peer import Letter, Payload, Poll, Push, Receive, Send
from decentral.transport.driver import FreeRun, Step
from decentral.transport.rank import RankDriver
from tests.transport.test_pushes import on_drivers
from tests.transport.test_rank import LOSS, PATIENCE_S

pytestmark = [pytest.mark.timeout(60), pytest.mark.parametrize("wire", ["gloo", "shared-memory"])]

LIKE: Payload = (torch.zeros(1000, dtype=torch.float64),)
REQUEST: Payload = (torch.zeros(1000, dtype=torch.float64),)
REPLY: Payload = (torch.zeros(999, dtype=torch.float64),)
KINDS = REQUEST, REPLY
Coro = Coroutine[Any, Any, Tensor]


class Steps(FreeRun):
    """So many steps, or as many as there is time for; what happened is counted."""

    def __init__(
        self,
        step: Callable[[int], Coro],
        serve: Callable[[], Coro],
        count: float = inf,
        over_s: float = inf,
        every_s: float = inf,
    ) -> None:
        self._step, self._serve, self._count, self._over_s, self._every_s = step, serve, count, over_s, every_s
        self.made, self.looks, self.ends = 0, list[float](), list[float]()

    @property
    def is_timed(self) -> bool:
        return self._over_s < inf

    @property
    def over_s(self) -> float:
        return self._over_s

    def begin(self, node: int, now_s: float) -> Step | None:
        return self._step(self.made) if self.made < self._count and now_s < self._over_s else None

    def end(self, node: int, loss: Tensor, now_s: float) -> None:
        self.made += 1
        self.ends.append(now_s)

    def serve(self, node: int) -> Step:
        return self._serve()

    def look_s(self) -> float:
        due_s = (len(self.looks) + 1) * self._every_s
        return due_s if due_s < self._over_s else inf

    def look(self, now_s: float) -> None:
        self.looks.append(now_s)

    def rejoin(self, node: int, now_s: float) -> tuple[int, int] | None:
        raise NotImplementedError


async def nothing() -> Tensor:
    return LOSS


def summed(driver: RankDriver, rank: int, nodes: int) -> tuple[float, int]:
    """A node of a ring that gives its mass to its neighbors, the last being slow: what it has in the end, and steps."""
    mass = torch.ones(1000, dtype=torch.float64)

    async def take(wait: bool) -> None:
        for arrival in (await Poll(LIKE, wait)).values():
            mass.add_(arrival.payload[0])

    async def step(number: int) -> Tensor:
        sleep(0.15 if rank == nodes - 1 else 0.001)
        mass.div_(3)
        await Push({(rank + 1) % nodes: (mass,), (rank - 1) % nodes: (mass,)}, LIKE, number, adds=True)
        await take(wait=False)
        return LOSS

    async def serve() -> Tensor:
        while True:
            await take(wait=True)

    run = Steps(step, serve, over_s=0.6)
    driver.run_free(run)
    assert mass.eq(mass[0]).all()
    return float(mass[0]), run.made


def answered(driver: RankDriver, rank: int, nodes: int) -> tuple[int, int, int]:
    """A node of a ring that asks the next one, in each step: how often it has, and has answered and been answered."""
    counted = Counter[str]()

    async def read(letter: Letter) -> None:
        if letter.kind:
            counted["replies"] += 1
        else:
            counted["requests"] += 1
            await Send(letter.sender, REPLY, KINDS)

    async def step(_number: int) -> Tensor:
        await Send((rank + 1) % nodes, REQUEST, KINDS)
        counted["sent"] += 1
        while (letter := await Receive(KINDS, wait=False)) is not None:
            await read(letter)
        return LOSS

    async def serve() -> Tensor:
        while True:
            letter = await Receive(KINDS)
            assert letter is not None
            sleep(0.005)
            await read(letter)

    driver.run_free(Steps(step, serve, count=10 * (rank + 1)))
    return counted["sent"], counted["requests"], counted["replies"]


def test_sums_have_all_arrived_when_a_run_ends_whoever_is_slow(wire: str) -> None:
    """What each node keeps and what it has got come to what all began with: nothing is under way any more."""
    found = on_drivers(3, partial(summed, nodes=3), wire)
    assert sum(mass for mass, _ in found) == pytest.approx(3, abs=1e-12)
    fast, other, slow = (made for _, made in found)
    assert min(fast, other) > slow > 0


def test_every_letter_is_answered_before_a_run_ends(wire: str) -> None:
    """Requests that are sent in the last step are read by who serves, and their replies by who asked."""
    assert on_drivers(3, partial(answered, nodes=3), wire) == [(10, 30, 10), (20, 10, 20), (30, 20, 30)]


def test_who_serves_nobody_does_not_hold_up_the_end_with_letters_that_it_does_not_read(wire: str) -> None:
    def work(driver: RankDriver, rank: int) -> int:
        async def step(_number: int) -> Tensor:
            await Send(1 - rank, REQUEST, KINDS)
            return LOSS

        run = Steps(step, nothing, count=5)
        driver.run_free(run)
        return run.made

    assert on_drivers(2, work, wire, timeout_s=10) == [5, 5]


def test_models_are_looked_at_between_steps_as_often_by_all_and_waits_end_with_the_time(wire: str) -> None:
    """Node 0 waits for something that nobody pushes, and still ends in time, with as many looks as the others."""

    def work(driver: RankDriver, rank: int) -> Steps:
        async def step(_number: int) -> Tensor:
            sleep(0.01)
            await Poll(LIKE, wait=rank == 0)
            return LOSS

        run = Steps(step, nothing, over_s=0.5, every_s=0.1)
        driver.run_free(run)
        return run

    waiting, going = on_drivers(2, work, wire)
    assert waiting.made == 0
    assert going.made > 3
    assert len(waiting.looks) == len(going.looks) == 4
    assert all(at_s >= (number + 1) * 0.1 for number, at_s in enumerate(going.looks))


def test_a_node_that_fails_ends_the_run_of_who_has_made_its_steps(wire: str) -> None:
    done = Event()

    def work(driver: RankDriver, rank: int) -> str:
        async def step(_number: int) -> Tensor:
            await Push({1 - rank: LIKE}, LIKE, 0)
            if rank:
                assert done.wait(PATIENCE_S)
                raise ValueError("here")
            return LOSS

        async def serve() -> Tensor:
            done.set()
            return LOSS

        with pytest.raises(ValueError if rank else LostNeighborError) as caught:
            driver.run_free(Steps(step, serve, count=1))
        return str(caught.value)

    assert on_drivers(2, work, wire)[0].startswith("node 0 lost node 1: connection closed (Poll, ")

"""What every driver demands of a step: effects only, of a kind that it answers, and posted payloads left alone."""

import asyncio
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

import pytest
import torch
from torch import Tensor

from decentral.peer import Effect, LossAndGradient, Now, Peer, Poll, Push, Receive
from decentral.topology.mixing import Row
from decentral.transport.driver import Driver
from decentral.transport.everyone import GlooEveryone
from decentral.transport.lockstep import LockstepDriver
from decentral.transport.rank import RankDriver
from decentral.transport.wiring import Wires

LOSS = torch.zeros(())


def no_gradient(at: Tensor) -> LossAndGradient:
    return LossAndGradient(LOSS, torch.zeros_like(at))


def lockstep() -> Driver:
    return LockstepDriver([no_gradient])


def rank() -> Driver:
    return RankDriver(0, 1, Wires(), no_gradient, everyone=GlooEveryone(lambda: None, 1), run=1, epoch=0, timeout_s=1.0)


DRIVERS = [lockstep, rank]


def alone() -> Peer:
    return Peer(0, 1, rows=lambda turn: Row(0, {0: 1.0}, ()))


class YieldsAnInteger:
    def __await__(self) -> Generator[int, None, None]:
        yield 7


@types.coroutine
def yields_nothing() -> Generator[None, None, None]:
    yield


async def plain_coroutine() -> None:
    await yields_nothing()


FOREIGN: dict[str, Callable[[], Awaitable[object]]] = {
    "asyncio.sleep(0)": lambda: asyncio.sleep(0),
    "asyncio.sleep(1)": lambda: asyncio.sleep(1),
    "an integer": YieldsAnInteger,
    "a plain coroutine": plain_coroutine,
}


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN.keys())
@pytest.mark.filterwarnings("error")
def test_awaiting_anything_else_fails_at_once(
    driver: Callable[[], Driver], foreign: Callable[[], Awaitable[object]]
) -> None:
    """`await asyncio.sleep(0)` yields None, which a driver could take for an effect that needs no answer: the step
    would go on, and its author believe that asyncio runs here. So every foreign yield is an error, raised where the
    step can no longer go on, in words that say what is allowed.
    """
    went_on = []

    async def my_step() -> Tensor:
        try:
            await foreign()
            went_on.append("after")
        finally:
            went_on.append("closed")
        return torch.zeros(())

    with pytest.raises(TypeError) as caught:
        driver().advance({0: my_step()}, 0)
    message = str(caught.value)
    assert "my_step awaited" in message
    assert "may await effects only" in message
    assert "methods of its peer" in message
    assert went_on == ["closed"]


@pytest.mark.parametrize("driver", DRIVERS)
def test_each_allowed_effect_is_named_once(driver: Callable[[], Driver]) -> None:
    """A dataclass with slots is made twice, and the first class stays among Effect's subclasses until a collection:
    the message listed `AllReduce, AllReduce, Collect, Collect, ...`.
    """

    async def step() -> Tensor:
        await asyncio.sleep(0)
        return torch.zeros(())

    with pytest.raises(TypeError) as caught:
        driver().advance({0: step()}, 0)
    listed = str(caught.value).partition("(")[2].partition(")")[0].split(", ")
    exchanging = ["AllReduce", "Collect", "Exchange", "Gather", "Gradient", "Mix", "Post"]
    assert listed == sorted([*exchanging, "Now", "Poll", "Push", "Receive", "Send"])


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_tensor_cannot_be_awaited(driver: Callable[[], Driver]) -> None:
    async def step() -> Tensor:
        return await torch.zeros(())  # type: ignore[misc, no-any-return]

    with pytest.raises(TypeError, match="Tensor can't be used in 'await'"):
        driver().advance({0: step()}, 0)


def test_an_async_generator_is_no_step() -> None:
    async def step() -> AsyncGenerator[Tensor, None]:
        yield torch.zeros(())

    with pytest.raises((TypeError, AttributeError)):
        lockstep().advance({0: step()}, 0)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "effect", [Poll(()), Push({}, (), 0), Now(), Receive((), wait=False)], ids=lambda effect: type(effect).__name__
)
def test_effects_of_nodes_that_do_not_wait_are_refused_in_lockstep(effect: Effect[Any]) -> None:
    closed = []

    async def step() -> Tensor:
        try:
            await effect
        finally:
            closed.append(True)
        return LOSS

    with pytest.raises(TypeError, match=rf"the lockstep driver does not answer {type(effect).__name__}"):
        lockstep().advance({0: step()}, 0)
    assert closed, "the step is ended, not left suspended"


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("change", [lambda x: x.add_(1), lambda x: x[1:].zero_(), lambda x: x.view(2, 2).mul_(2)])
def test_a_payload_that_changed_before_its_collect_is_refused(
    driver: Callable[[], Driver], change: Callable[[Tensor], object]
) -> None:
    """The lockstep driver copies a payload when it is posted, a zero-copy transport sends it while the step computes:
    a change in between gives two results. Both drivers refuse it, writes through views included.
    """

    async def step() -> Tensor:
        x = torch.ones(4)
        ticket = await alone().post((x,))
        change(x)
        await alone().collect(ticket)
        return torch.zeros(())

    with pytest.raises(RuntimeError, match="node 0 changed a payload between Post and Collect; post a clone"):
        driver().advance({0: step()}, 0)


@pytest.mark.parametrize("driver", DRIVERS)
def test_an_optimizer_step_before_the_collect_is_refused(driver: Callable[[], Driver]) -> None:
    """A local optimizer writes through parameters that are views of the posted vector: the likeliest way of all."""

    async def step() -> Tensor:
        x = torch.ones(4)
        parameter = torch.nn.Parameter(x[:2])
        parameter.grad = torch.ones(2)
        ticket = await alone().post((x,))
        torch.optim.SGD([parameter], lr=0.1).step()
        await alone().collect(ticket)
        return torch.zeros(())

    with pytest.raises(RuntimeError, match="changed a payload"):
        driver().advance({0: step()}, 0)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_payload_may_be_read_meanwhile_and_changed_afterwards(driver: Callable[[], Driver]) -> None:
    async def step() -> Tensor:
        x = torch.ones(4)
        ticket = await alone().post((x,))
        copy = x + 1
        await alone().collect(ticket)
        return (x.add_(1) - copy).abs().sum()

    assert driver().advance({0: step()}, 0)[0] == 0

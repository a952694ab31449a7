"""The waist: a closed vocabulary of effects whose answers a type checker knows, and what a step may not await."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mypy import api
from torch import Tensor

from decentral import peer as waist
from decentral.peer import (
    Block,
    Effect,
    Exchange,
    Gradient,
    LossAndGradient,
    Messages,
    Peer,
    Post,
    Ticket,
    weighted_sum,
)
from decentral.topology.mixing import Row
from decentral.transport.lockstep import LockstepDriver

EXCHANGES = {"Gradient", "Exchange", "Post", "Collect", "Mix", "AllReduce", "Gather"}
VOCABULARY = EXCHANGES | {"Send", "Receive", "Push", "Poll", "Now"}


def no_gradient(at: Tensor) -> LossAndGradient:
    return LossAndGradient(torch.zeros(()), torch.zeros_like(at))


def alone(node: int = 0, seed: int = 0) -> Peer:
    return Peer(node, 1, rows=lambda turn: Row(node, {node: 1.0}, ()), seed=seed)


# What mypy must infer, line by line: the answer of each effect, and of each method of the peer.
INFERRED = """
from collections.abc import Mapping
from typing import assert_type
from torch import Tensor
from decentral.peer import *
from decentral.peer import Arrival, Letter, Payload
from decentral.topology.mixing import Row

async def effects(x: Tensor, ticket: Ticket) -> None:
    assert_type(await Gradient(x), LossAndGradient)
    assert_type(await Exchange(Messages.alike((x,), (1,), (1,))), Mapping[int, Payload])
    assert_type(await Post(Messages({1: (x,)}, (1,), (x,))), Ticket)
    assert_type(await Collect(ticket), Mapping[int, Payload])
    assert_type(await Mix(x, Row(0, {0: 1.0}, ())), None)
    assert_type(await Send(1, (x,), ((x,),)), None)
    assert_type(await Receive(((x,),)), Letter | None)
    assert_type(await Push({1: (x,)}, (x,), 3), None)
    assert_type(await Poll((x,)), Mapping[int, Arrival])
    assert_type(await Now(), float)
    assert_type(await AllReduce(x), Tensor)
    assert_type(await Gather((x,)), Mapping[int, Payload])

async def methods(x: Tensor, ticket: Ticket, peer: Peer) -> None:
    assert_type(await peer.gradient(x), LossAndGradient)
    assert_type(await peer.exchange((x,)), Mapping[int, Payload])
    assert_type(await peer.post((x,), 2), Ticket)
    assert_type(await peer.exchange_each({1: (x,)}, like=(x,)), Mapping[int, Payload])
    assert_type(await peer.post_each({1: (x,)}, 2), Ticket)
    assert_type(await peer.collect(ticket), Mapping[int, Payload])
    assert_type(await peer.all_reduce(x), Tensor)
    assert_type(await peer.gather((x,)), Mapping[int, Payload])
    assert_type(await peer.mix(x), Tensor)
    assert_type(await peer.mix_(x, turn=3), Tensor)
    assert_type(await peer.receive(((x,),)), Letter)
    assert_type(await peer.receive_if_any(((x,),)), Letter | None)
    assert_type(await peer.push((x,)), None)
    assert_type(await peer.poll((x,)), Mapping[int, Arrival])
    assert_type(await peer.now(), float)
"""

# Each line is a mistake that an author of algorithms could make; each must be an error of its own.
MISTAKES = """
from torch import Tensor
from decentral.peer import AllReduce, Exchange, Gradient, Messages, Peer, Post

async def mistakes(x: Tensor, peer: Peer) -> None:
    loss, gradient, more = await peer.gradient(x)
    a: Tensor = peer.gradient(x)
    b: Tensor = await peer.exchange((x,))
    c: Tensor = (await peer.post((x,))).payload
    await peer.collect(3)
    await peer.exchange(x)
    await Exchange((x,), (1,))
    await peer.exchange_each((x,))
    await Post(Messages.alike((x,), "1", "1"))
    d: float = await AllReduce(x)
    e: Tensor = await peer.gather((x,))
    await x
    peer.bytes_sent
"""


def mypy(tmp_path: Path, text: str) -> tuple[list[int], str]:
    """The lines that mypy --strict finds fault with, and what it says."""
    snippet = tmp_path / "snippet.py"
    snippet.write_text(text)
    config = Path(__file__).parents[1] / "pyproject.toml"
    out, err, _ = api.run([f"--config-file={config}", "--strict", "--no-error-summary", str(snippet)])
    found = [line.split(":")[1] for line in out.splitlines() if "snippet.py" in line and ": error:" in line]
    return sorted({int(number) for number in found}), out + err


@pytest.mark.timeout(300)
def test_mypy_infers_the_answer_of_every_effect_and_refuses_the_wrong_use(tmp_path: Path) -> None:
    """`answer = await effect` is typed by Effect.__await__ alone. If its send type were not the answer's type (mypy
    then infers Any), every wrong use of an answer would pass --strict in silence; so mistakes are tested too.
    """
    asked = set(VOCABULARY)
    for line in INFERRED.splitlines():
        asked -= {name for name in asked if f"await {name}(" in line}
    assert not asked, f"no assert_type for {asked}"
    (tmp_path / "good").mkdir()
    good, said = mypy(tmp_path / "good", INFERRED)
    assert good == [], said
    mistakes = [number for number, line in enumerate(MISTAKES.splitlines(), 1) if line.startswith("    ")]
    found, said = mypy(tmp_path, MISTAKES)
    assert found == mistakes, said


def test_the_vocabulary_is_closed() -> None:
    defined = {name for name, value in vars(waist).items() if inspect.isclass(value) and issubclass(value, Effect)}
    assert defined - {"Effect"} == VOCABULARY


def test_effects_are_frozen_and_without_a_dictionary() -> None:
    effect = Exchange(Messages.alike((torch.zeros(2),), (1,), (1,)))
    with pytest.raises(AttributeError):
        effect.messages = effect.messages  # type: ignore[misc]
    assert not hasattr(effect, "__dict__")


def test_neighbors_are_the_row_without_its_own_node() -> None:
    assert Row(2, {0: 0.25, 2: 0.5, 5: 0.25}, (0, 5)).sources == (0, 5)
    assert Row(2, {2: 1.0}, ()).sources == ()


def test_a_turn_is_the_round_unless_given() -> None:
    asked: list[int] = []

    def rows(turn: int) -> Row:
        asked.append(turn)
        return Row(0, {0: 0.5, turn + 1: 0.5}, (turn + 2,))

    peer = Peer(0, 9, rows, round=4)
    effect = peer.exchange((torch.zeros(1),)).send(None)
    assert isinstance(effect, Exchange)
    assert (effect.messages.sources, [*effect.messages.to]) == ((5,), [6])
    effect = peer.post((torch.zeros(1),), turn=1).send(None)
    assert isinstance(effect, Post)
    assert (effect.messages.sources, [*effect.messages.to]) == ((2,), [3])
    assert asked == [4, 1]


def directed(node: int = 0, sources: tuple[int, ...] = (1,), to: tuple[int, ...] = (2, 3)) -> Peer:
    weights = dict(sorted(({node: 0.5} | dict.fromkeys(sources, 0.5)).items()))
    return Peer(node, 4, lambda turn: Row(node, weights, to))


def test_one_payload_for_all_is_one_object_and_each_may_have_its_own() -> None:
    payload = (torch.zeros(1),)
    effect = directed().exchange(payload).send(None)
    assert isinstance(effect, Exchange)
    assert effect.messages.sent == [payload]
    assert all(sent is payload for sent in effect.messages.to.values())
    each = {3: (torch.ones(1),), 2: (torch.zeros(1),)}
    effect = directed().post_each(each).send(None)
    assert isinstance(effect, Post)
    assert effect.messages == (each, (1,), each[3])
    effect = directed(to=()).exchange_each({}, like=payload).send(None)
    assert isinstance(effect, Exchange)
    assert effect.messages == ({}, (1,), payload)


def test_payloads_that_are_not_for_exactly_the_receivers_are_refused() -> None:
    payload = (torch.zeros(1),)
    with pytest.raises(ValueError, match=r"node 0 has payloads for \[2\] and sends to \[2, 3\] in this turn; required"):
        directed().exchange_each({2: payload}).send(None)
    with pytest.raises(ValueError, match=r"node 0 receives from \[1\] in this turn and sends to nobody"):
        directed(to=()).exchange_each({}).send(None)
    assert isinstance(directed(sources=(), to=()).exchange_each({}).send(None), Exchange)


def test_a_block_is_a_view_of_its_own_shape() -> None:
    flat = torch.arange(10.0)
    assert Block("weight", (2, 3), 1).of(flat).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert Block("scale", (), 7).of(flat).shape == ()
    assert Block("empty", (0, 3), 10).of(flat).shape == (0, 3)
    Block("bias", (3,), 7).of(flat).zero_()
    assert flat[7:].tolist() == [0, 0, 0]


def test_generators_differ_by_seed_node_and_purpose_and_repeat() -> None:
    def drawn(seed: int, node: int, purpose: str) -> tuple[float, ...]:
        return tuple(torch.rand(4, generator=alone(node, seed).generator(purpose)).tolist())

    streams = [(seed, node, purpose) for seed in (0, 1) for node in (0, 1, 7) for purpose in ("quantize", "drop")]
    draws = {drawn(*each) for each in streams}
    assert len(draws) == len(streams)
    assert {drawn(*each) for each in streams} == draws


def test_weights_are_summed_in_ascending_order_whatever_the_order_of_arrival() -> None:
    """Sums of floats depend on their order: (1e8 + 1) - 1e8 is 0 in float32, (1e8 - 1e8) + 1 is 1. Messages arrive in
    any order, so drivers agree bitwise only if the order is the nodes'.
    """
    vectors = {0: torch.tensor([1e8]), 1: torch.tensor([1.0]), 2: torch.tensor([-1e8])}
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        shuffled = {node: vectors[node] for node in order}
        weights = dict.fromkeys(reversed(order), 1.0)
        assert weighted_sum(weights, shuffled, out=torch.empty(1)).item() == 0.0


def test_a_gradient_effect_runs_without_any_driver() -> None:
    """A driver is a loop around send: nothing else drives a step, no event loop either."""

    async def step() -> Tensor:
        return (await alone().gradient(torch.ones(2))).loss

    running: Iterator[Any] = step().__await__()
    asked = next(running)
    assert isinstance(asked, Gradient)
    with pytest.raises(StopIteration) as done:
        running.send(LossAndGradient(torch.tensor(3.0), torch.zeros(2)))  # type: ignore[attr-defined]
    assert done.value.value == 3.0


def test_tickets_of_one_node_differ() -> None:
    tickets: list[Ticket] = []

    async def step() -> Tensor:
        tickets.extend([await alone().post((torch.zeros(1),)) for _ in range(3)])
        return torch.zeros(())

    LockstepDriver([no_gradient]).advance({0: step()}, 0)
    assert len(set(tickets)) == 3

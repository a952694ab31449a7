"""The rank driver on a timeline, over real links: it hears the same, and what is noted is whole."""

from collections import Counter
from collections.abc import Coroutine, Mapping
from typing import Any

import networkx as nx
import pytest
import torch
from torch import Tensor

from decentral.errors import LostNeighborError
from decentral.peer import (
    AllReduce,
    Collect,
    Exchange,
    Gradient,
    LossAndGradient,
    Messages,
    Payload,
    Post,
    Receive,
    Send,
)
from decentral.timeline import Span, Timeline
from decentral.topology.topology import Topology
from decentral.transport.driver import Driver
from decentral.transport.traced import TracedDriver
from decentral.transport.world import World
from tests.contract.ranks import WIRES, on_ranks
from tests.transport.messages import both_ways

pytestmark = pytest.mark.timeout(90)

NODES, ROUNDS = 3, 4
PATH = Topology.static("path", nx.path_graph(NODES), "metropolis")
NUMBERS = 5
FRAME_BYTES = 64 + 24


def gradient(at: Tensor) -> LossAndGradient:
    return LossAndGradient(at.sum(), torch.ones_like(at))


async def conversation(node: int, heard: list[Any]) -> Tensor:
    """An exchange, two posts collected the other way round, an all-reduce, and an exchange with nobody."""
    neighbors, x = PATH.neighbors(node), torch.full((NUMBERS,), float(node))

    def note(received: Mapping[int, Payload]) -> None:
        heard.append({sender: payload[0].tolist() for sender, payload in received.items()})

    note(await Exchange(both_ways((x,), neighbors)))
    first = await Post(both_ways((x + 1,), neighbors))
    second = await Post(both_ways((x + 2,), neighbors))
    loss, _ = await Gradient(x)
    note(await Collect(second))
    note(await Collect(first))
    heard.append((await AllReduce(x)).tolist())
    note(await Exchange(both_ways((x,), ())))
    return loss


def play(driver: Driver, node: int) -> list[Any]:
    heard: list[Any] = []
    for round in range(ROUNDS):
        heard.append(driver.advance({node: conversation(node, heard)}, round)[node].item())
    driver.close()
    return heard


@pytest.mark.parametrize("wire", WIRES)
def test_what_is_heard_is_the_same_and_each_message_is_noted_once(wire: str) -> None:
    def work(world: World) -> tuple[Any, Any, list[Span], int]:
        timeline = Timeline(world.rank)
        plain = world.driver(PATH, gradient, run=1, epoch=0)
        heard = play(plain, world.rank)
        inner = world.driver(PATH, gradient, run=1, epoch=1, timeline=timeline)
        traced = TracedDriver(inner, timeline)
        again = play(traced, world.rank)
        assert plain.bytes_sent == traced.bytes_sent
        return heard, again, list(timeline.spans()), traced.bytes_sent[world.rank]

    found = on_ranks(NODES, work, wire=wire)
    sends, waits = Counter[Any](), Counter[Any]()
    for node, (heard, again, spans, sent) in enumerate(found):
        assert heard == again
        degree = len(PATH.neighbors(node))
        counts = Counter(span.category for span in spans)
        assert counts["send"] == counts["wait"] == 3 * degree * ROUNDS
        assert counts["exchange"] == 3 * ROUNDS
        assert counts["round"] == counts["all-reduce"] == ROUNDS
        totals = {span.neighbor: span.total_bytes for span in spans if span.category == "send"}
        assert set(totals.values()) == {3 * ROUNDS * FRAME_BYTES}
        assert sum(totals.values()) == sent - ROUNDS * round_bytes(NUMBERS)
        sends.update((node, s.neighbor, s.round, s.sequence) for s in spans if s.category == "send")
        waits.update((s.neighbor, node, s.round, s.sequence) for s in spans if s.category == "wait")
    assert sends == waits
    assert set(sends.values()) == {1}


@pytest.mark.parametrize("wire", ["gloo", "shared-memory"])
def test_a_letter_s_send_finds_its_wait(wire: str) -> None:
    kinds = ((torch.zeros(2),), (torch.zeros((), dtype=torch.int64),))

    async def step(node: int) -> Tensor:
        for neighbor in PATH.neighbors(node):
            for kind in kinds:
                await Send(neighbor, kind, kinds)
        for _ in range(2 * len(PATH.neighbors(node))):
            await Receive(kinds)
        return torch.zeros(())

    def work(world: World) -> tuple[list[Span], int]:
        timeline = Timeline(world.rank)
        driver = TracedDriver(world.driver(PATH, gradient, run=1, epoch=0, timeline=timeline), timeline)
        for round in range(ROUNDS):
            driver.advance({world.rank: step(world.rank)}, round)
        driver.close()
        return list(timeline.spans()), driver.bytes_sent[world.rank]

    sends, waits = Counter[Any](), Counter[Any]()
    for node, (spans, sent) in enumerate(on_ranks(NODES, work, wire=wire)):
        sends.update((node, s.neighbor, s.round, s.sequence) for s in spans if s.category == "send")
        waits.update((s.neighbor, node, s.round, s.sequence) for s in spans if s.category == "wait")
        assert sum({s.neighbor: s.total_bytes for s in spans if s.category == "send"}.values()) == sent
    assert sends == waits
    assert len(sends) == 2 * 2 * 2 * ROUNDS


def round_bytes(numbers: int) -> int:
    """What the ring formula counts for one all-reduce of float32 numbers."""
    return round(2 * (NODES - 1) / NODES * 4 * numbers)


def test_posted_exchanges_last_until_they_are_collected() -> None:
    def work(world: World) -> list[Span]:
        timeline = Timeline(world.rank)
        driver = TracedDriver(world.driver(PATH, gradient, run=1, epoch=0, timeline=timeline), timeline)
        play(driver, world.rank)
        return list(timeline.spans())

    for spans in on_ranks(NODES, work):
        for round in range(ROUNDS):
            own = [span for span in spans if span.round == round]
            zeroth, second, first = (span for span in own if span.category == "exchange")  # in order of their ends
            assert [zeroth.sequence, second.sequence, first.sequence] == [0, 2, 1]
            assert zeroth.ended_ns <= first.began_ns <= second.began_ns <= second.ended_ns <= first.ended_ns
            ends = {span.sequence: span.ended_ns for span in own if span.category == "wait"}
            assert ends == {0: zeroth.ended_ns, 1: first.ended_ns, 2: second.ended_ns}


def test_a_round_that_fails_is_noted_with_the_wait_that_failed() -> None:
    def work(world: World) -> list[str]:
        timeline = Timeline(world.rank)
        driver = TracedDriver(world.driver(PATH, gradient, run=1, epoch=0, timeline=timeline), timeline)
        driver.gather({world.rank: [0.0]})
        if world.rank == 1:
            driver.close()
            return []
        with pytest.raises(LostNeighborError):
            driver.advance({world.rank: conversation(world.rank, [])}, 0)
        return [span.category for span in timeline.spans()]

    for categories in on_ranks(NODES, work)[::2]:
        assert categories in (["encode", "round"], ["encode", "send", "wait", "round"])


def test_a_fault_of_the_step_still_names_the_step() -> None:
    class Foreign:
        def __await__(self) -> Any:
            yield 7

    async def wrong_step() -> Tensor:
        await Foreign()
        return torch.zeros(())

    def step() -> Coroutine[Any, Any, Tensor]:
        return wrong_step()

    def work(world: World) -> str:
        timeline = Timeline(world.rank)
        driver = TracedDriver(world.driver(None, gradient, run=1, epoch=0, timeline=timeline), timeline)
        with pytest.raises(TypeError) as caught:
            driver.advance({world.rank: step()}, 0)
        return str(caught.value)

    assert "wrong_step awaited something that yields 7" in on_ranks(1, work)[0]


@pytest.mark.parametrize("wire", WIRES)
def test_of_exchanges_in_one_direction_each_message_is_noted_once(wire: str) -> None:
    """Node 0 sends and never waits for a message, node 2 receives and never sends one."""

    async def step(node: int) -> Tensor:
        to, sources = ((node + 1,) if node < 2 else ()), ((node - 1,) if node else ())
        messages = Messages.alike((torch.zeros(NUMBERS),), to, sources)
        await Exchange(messages)
        ticket = await Post(messages)
        loss, _ = await Gradient(torch.zeros(NUMBERS))
        await Collect(ticket)
        return loss

    def work(world: World) -> list[Span]:
        timeline = Timeline(world.rank)
        driver = TracedDriver(world.driver(PATH, gradient, run=1, epoch=0, timeline=timeline), timeline)
        for round in range(ROUNDS):
            driver.advance({world.rank: step(world.rank)}, round)
        driver.close()
        return list(timeline.spans())

    found = on_ranks(NODES, work, wire=wire)
    counts = [Counter(span.category for span in spans) for spans in found]
    noted = [(count["send"] // ROUNDS, count["wait"] // ROUNDS) for count in counts]
    assert noted == [(2, 2), (2, 4), (0, 2)], "who sends waits until it is through, too"
    assert [count["exchange"] for count in counts] == 3 * [2 * ROUNDS]
    places = [
        {(span.round, span.sequence) for span in spans if span.category == category and span.neighbor == neighbor}
        for spans, category, neighbor in ((found[0], "send", 1), (found[1], "wait", 0))
    ]
    assert places[0] == places[1] == {(round, sequence) for round in range(ROUNDS) for sequence in range(2)}

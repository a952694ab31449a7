"""Exchanges of one direction, or of a payload of its own for each neighbor, over real links with ranks as threads."""

from threading import Event
from typing import Any

import networkx as nx
import pytest
import torch
from torch import Tensor

from decentral.peer import Collect, Effect, Exchange, Messages, Mix, Payload, Post
from decentral.topology.mixing import Row
from decentral.transport.lockstep import LockstepDriver
from decentral.transport.rank import RankDriver
from decentral.transport.world import World
from tests.contract.ranks import WIRES, on_ranks
from tests.transport.messages import both_ways
from tests.transport.test_rank import GRAPHS, LOSS, PATIENCE_S, advance, gradient, lost, rank_driver

pytestmark = pytest.mark.timeout(90)

ONE_WAY = nx.path_graph(3)
"""Node 0 sends to 1, and 1 to 2."""


def one_way(node: int, payload: Payload) -> Messages:
    return Messages.alike(payload, (node + 1,) if node < 2 else (), (node - 1,) if node else ())


@pytest.mark.parametrize("wire", WIRES)
def test_in_one_direction_tickets_may_be_collected_in_a_later_round(wire: str) -> None:
    def work(world: World) -> list[dict[int, float]]:
        driver, heard = rank_driver(world, ONE_WAY), []
        tickets: list[Any] = []

        async def step(round: int) -> Tensor:
            if round < 5:
                tickets.append(await Post(one_way(world.rank, (torch.tensor([10.0 * round + world.rank]),))))
            if round:
                received = await Collect(tickets[round - 1])
                heard.append({sender: payload[0].item() for sender, payload in received.items()})
            return LOSS

        for round in range(6):
            advance(driver, step(round), round)
        driver.close()
        return heard

    assert on_ranks(3, work, wire=wire) == [
        [{node - 1: 10.0 * round + node - 1} if node else {} for round in range(5)] for node in range(3)
    ]


@pytest.mark.parametrize("silent", [0, 2], ids=["receiver waits", "sender waits"])
@pytest.mark.parametrize("wire", ["gloo", "shared-memory"])
def test_whoever_waits_in_one_direction_names_both_ends(wire: str, silent: int) -> None:
    over = Event()

    def work(world: World) -> str:
        driver = rank_driver(world, ONE_WAY, timeout_s=1.0)
        payload = (torch.zeros(3_000_000),)
        try:
            if world.rank == silent:
                over.wait(PATIENCE_S)
            elif world.rank == 1:
                return lost(lambda: perform(driver, Exchange(one_way(1, payload)), round=3))
            elif silent == 2:
                perform(driver, Exchange(one_way(0, payload)), round=3)
            else:
                over.wait(PATIENCE_S)
            return ""
        finally:
            if world.rank == 1:
                over.set()
            driver.close()

    name = "shared memory" if wire == "shared-memory" else wire
    assert (
        on_ranks(3, work, wire=wire)[1]
        == f"node 1 waited 1.0 s for node {silent} in round 3 (Exchange, 12.0 MB, {name})"
    )


def perform(driver: RankDriver, *effects: Effect[Any], round: int = 0) -> list[Any]:
    """One round that asks for these."""
    answers: list[Any] = []

    async def step() -> Tensor:
        for effect in effects:
            answers.append(await effect)
        return LOSS

    advance(driver, step(), round)
    return answers


@pytest.mark.parametrize("wire", WIRES)
def test_a_vector_that_is_sent_and_not_mixed_may_change_at_once(wire: str) -> None:
    """Over shared memory x is sent from where it lies. Symptom of a Mix that left it there since nothing came to be
    added: the node changed it in its next step, while the receiver, which was late, had yet to read it.
    """
    rounds, changed = 6, [Event() for _ in range(6)]

    def work(world: World) -> list[float]:
        driver, seen = rank_driver(world, GRAPHS["pair"]), []
        x = torch.full((300,), 1.0)

        async def moving() -> Tensor:
            await Mix(x, Row(world.rank, {0: 0.5, 1: 0.5}, (1 - world.rank,)))
            return LOSS

        advance(driver, moving(), round=99)

        async def sender(round: int) -> Tensor:
            await Mix(x, Row(0, {0: 1.0}, (1,)))
            x.add_(1)
            changed[round].set()
            return LOSS

        async def late_receiver(round: int) -> Tensor:
            ticket = await Post(Messages.alike((x,), (), (0,)))
            assert changed[round].wait(PATIENCE_S)
            seen.extend((await Collect(ticket))[0][0].unique().tolist())
            return LOSS

        for round in range(rounds):
            advance(driver, (late_receiver if world.rank else sender)(round), round)
        driver.close()
        return seen

    assert on_ranks(2, work, wire=wire)[1] == [1.0 + round for round in range(rounds)]


@pytest.mark.parametrize("wire", WIRES)
def test_a_node_that_only_receives_mixes_where_its_vector_lies(wire: str) -> None:
    """Each round another node sends to both others: the vectors are moved, or not, and no memory is lost on the way."""
    nodes, rounds = 3, 12
    starts = torch.randn(nodes, 300, generator=torch.Generator().manual_seed(2))

    def row(node: int, round: int) -> Row:
        sender = round % nodes
        if node == sender:
            return Row(node, {node: 1.0}, tuple(j for j in range(nodes) if j != node))
        return Row(node, dict(sorted({node: 0.75, sender: 0.25}.items())), ())

    async def step(x: Tensor, node: int, round: int) -> Tensor:
        await Mix(x, row(node, round))
        x.mul_(1.01)
        return LOSS

    def work(world: World) -> tuple[Tensor, int]:
        driver, x, addresses = rank_driver(world, GRAPHS["complete"]), starts[world.rank].clone(), set()
        for round in range(rounds):
            advance(driver, step(x, world.rank, round), round)
            addresses.add(x.data_ptr())
        driver.close()
        return x, len(addresses)

    oracle, expected = LockstepDriver([gradient] * nodes), [start.clone() for start in starts]
    for round in range(rounds):
        oracle.advance({node: step(expected[node], node, round) for node in range(nodes)}, round)
    for node, (x, addresses) in enumerate(on_ranks(nodes, work, wire=wire)):
        assert torch.equal(x, expected[node])
        assert addresses <= 4


def test_what_cannot_be_sent_is_refused_before_it_hangs() -> None:
    def work(world: World) -> list[str]:
        driver, said = rank_driver(world, ONE_WAY), []
        other, one, two = (torch.zeros(3),), (torch.zeros(2),), (torch.zeros(2, dtype=torch.float64),)
        for messages in (Messages.alike(other, (7,), ()), Messages({1: one, 2: two}, (), one)):
            with pytest.raises(RuntimeError) as caught:
                perform(driver, Post(messages))
            said.append(str(caught.value))
        return said

    stranger, unlike = on_ranks(3, work)[0]
    assert stranger == "node 0 has no link to node 7, which it sends to or receives from"
    assert unlike == (
        "node 0 sent [((2,), torch.float64)] to node 2 in an exchange of [((2,), torch.float32)]; all payloads of an "
        "exchange must be tensors of the same shapes and dtypes"
    )


@pytest.mark.parametrize("wire", WIRES)
def test_a_part_of_a_vector_may_be_posted_while_another_changes(wire: str) -> None:
    """torch counts writes by the whole tensor, so a half that nobody touched looked changed."""

    def work(world: World) -> str:
        driver, x = rank_driver(world, GRAPHS["pair"]), torch.zeros(6)

        async def step(written: slice) -> Tensor:
            ticket = await Post(both_ways((x[:3],), (1 - world.rank,)))
            x[written] += 1
            await Collect(ticket)
            return LOSS

        advance(driver, step(slice(3, 6)))
        with pytest.raises(RuntimeError) as caught:
            advance(driver, step(slice(2, 3)), round=1)
        driver.close()
        return str(caught.value)

    assert "node 0 changed a payload between Post and Collect" in on_ranks(2, work, wire=wire)[0]

"""A dry run counts what a real one sends, to the byte, for every method."""

from collections.abc import Iterator
from typing import Any

import networkx as nx
import pytest
import torch
from torch import Tensor

from decentral.algorithms import ALGORITHMS
from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.local import LocalOptimizer
from decentral.peer import Block, LossAndGradient, Peer, Receive, Ticket
from decentral.topology.mixing import Row
from decentral.topology.topology import Topology
from decentral.transport.dry import DryNode, Exchanged, Reduced, Round
from decentral.transport.lockstep import LockstepDriver

NODES, ROUNDS = 5, 6
LAYOUT = (Block("weight", (3, 3), 0), Block("bias", (2,), 9))  # 11 floats: an odd size, so padding counts too
LOCAL = LocalOptimizer(torch.optim.SGD, {"lr": 0.1, "momentum": 0.9})
STAR = Topology.static("star", nx.star_graph(NODES - 1), "metropolis")  # degrees 4 and 1


def variants() -> Iterator[tuple[str, Algorithm]]:
    """Every method, and D-SGD in all its orders, with and without local steps."""
    sign, half = {"compression": "sign"}, {"consensus_step": 0.5}
    required: dict[str, dict[str, Any]] = {
        **dict.fromkeys(("choco", "beer", "motef", "deepsqueeze"), sign | half),
        **dict.fromkeys(("dcd", "ecd"), sign),
        "lead": {"compression": "qsgd"},
        **{key: {"every": 2} for key in ("gasloc", "noloco", "diloco", "fedavg")},
        "sparseloco": sign | half | {"every": 2},
    }
    for name, method in ALGORITHMS.items():
        yield name, method(local=LOCAL, **required.get(name, {}))
    for order in ("adapt-then-combine", "combine-then-adapt", "adapt-while-communicate"):
        for every in (1, 2, 4):
            yield f"dsgd {order} {every}", ALGORITHMS["dsgd"](local=LOCAL, order=order, every=every)  # type: ignore[call-arg]


def peer(node: int) -> Peer:
    return Peer(node, NODES, rows=lambda turn: STAR.row(node, turn), layout=LAYOUT)


def sent_in_lockstep(algorithm: Algorithm) -> list[int]:
    def gradient(at: Tensor) -> LossAndGradient:
        return LossAndGradient(at.sum(), at.clone())

    driver = LockstepDriver([gradient] * NODES)
    peers = [peer(node) for node in range(NODES)]
    states = [algorithm.init(torch.full((11,), float(each.node)), each) for each in peers]
    for round in range(ROUNDS):
        for each in peers:
            each.round = round
        driver.advance({each.node: algorithm.step(states[each.node], each) for each in peers}, round)
    return [driver.bytes_sent[node] for node in range(NODES)]


def sent_in_dry_run(algorithm: Algorithm, node: int) -> int:
    dry, each = DryNode(NODES), peer(node)
    state = algorithm.init(torch.empty(11, device="meta"), each)
    for round in range(ROUNDS):
        each.round = round
        dry.advance(algorithm.step(state, each))
    return dry.bytes_sent


@pytest.mark.parametrize(("name", "algorithm"), list(variants()))
def test_a_dry_run_counts_what_a_run_sends(name: str, algorithm: Algorithm) -> None:
    counted = [sent_in_dry_run(algorithm, node) for node in range(NODES)]
    assert counted == sent_in_lockstep(algorithm)
    assert all(counted)


def test_messages_are_counted_by_neighbor() -> None:
    async def step(each: Peer) -> Tensor:
        await each.exchange((torch.empty(3, device="meta"), torch.empty(5, dtype=torch.uint8, device="meta")))
        return torch.empty(())

    hub, leaf = DryNode(NODES), DryNode(NODES)
    hub.advance(step(peer(0)))
    leaf.advance(step(peer(1)))
    assert (hub.messages_sent, leaf.messages_sent) == (4, 1)
    assert (hub.bytes_sent, leaf.bytes_sent) == (4 * (64 + 16 + 8), 64 + 16 + 8)


def test_directions_are_counted_apart_and_messages_that_differ() -> None:
    vector = (torch.empty(4, device="meta"),)

    async def step(each: Peer) -> Tensor:
        await each.exchange(vector)
        to = {j: (torch.empty(4, device="meta"),) for j in each.row().to}
        received = await each.exchange_each(to, like=vector)
        assert list(received) == [*each.row().sources]
        return torch.empty(())

    rows = {1: Row(1, {1: 0.5, 3: 0.5}, (2, 4)), 2: Row(2, {1: 0.5, 2: 0.5}, ())}
    for node, row in rows.items():
        dry, receivers = DryNode(NODES), len(row.to)
        dry.advance(step(Peer(node, NODES, lambda turn, row=row: row)))  # type: ignore[misc]
        frame = 64 + 16
        assert dry.rounds == [
            Round(
                0, [Exchanged(receivers, 1, frame, min(receivers, 1), 0), Exchanged(receivers, 1, frame, receivers, 0)]
            )
        ]
        assert (dry.bytes_sent, dry.largest_frame) == (2 * receivers * frame, frame)


def test_each_round_says_what_is_sent_behind_a_gradient() -> None:
    """By what the text does between Post and Collect, in a later round too, and not by the method's name."""
    vector = torch.empty(4, device="meta")
    left: list[Ticket] = []

    async def step(each: Peer) -> Tensor:
        overlapped = await each.post((vector,))
        await each.gradient(vector)
        await each.collect(overlapped)
        await each.exchange((vector,))
        left.append(await each.post((vector,)))
        if each.round == 1:
            await each.collect(left[0])
        return (await each.gradient(await each.all_reduce(vector))).loss

    hub, each = DryNode(NODES), peer(0)
    for each.round in range(2):
        hub.advance(step(each))
    first, second = hub.rounds
    frame = 64 + 16
    assert first == Round(
        2,
        [Exchanged(4, 4, frame, 1, 1), Exchanged(4, 4, frame, 1, 0), Exchanged(4, 4, frame, 1, 2)],
        [Reduced(16, NODES)],
    )
    assert second == Round(
        2,
        [Exchanged(4, 4, frame, 1, 1), Exchanged(4, 4, frame, 1, 0), Exchanged(4, 4, frame, 1, None)],
        [Reduced(16, NODES)],
    )
    assert hub.bytes_sent == sum(each.bytes_sent for each in hub.rounds) + 2 * round(1.6 * 16)


def test_an_effect_that_it_cannot_count_is_refused() -> None:
    async def step() -> Tensor:
        await Receive(())
        return torch.empty(())

    with pytest.raises(TypeError, match="a dry run does not answer Receive"):
        DryNode(NODES).advance(step())

"""A gather brings every node's payload to every node: in lockstep, on ranks and in a dry run, to the same bits."""

from collections.abc import Callable, Coroutine, Mapping
from threading import Event
from typing import Any

import pytest
import torch
from torch import Tensor

from decentral.errors import LostNeighborError
from decentral.peer import AllReduce, Gather, LossAndGradient, Payload
from decentral.timeline import Timeline
from decentral.transport.driver import Driver
from decentral.transport.dry import DryNode, Gathered
from decentral.transport.lockstep import DeadlockError, LockstepDriver
from decentral.transport.traced import TracedDriver
from decentral.transport.world import World
from tests.contract.ranks import WIRES, on_ranks

pytestmark = pytest.mark.timeout(90)

NODES, ROUNDS = 3, 3
LOSS = torch.zeros(())
FRAMES = (64 + 32 + 8, 64 + 24)  # bytes of the two that each round has
StepOf = Callable[[int], Coroutine[Any, Any, Tensor]]


def gradient(at: Tensor) -> LossAndGradient:
    return LossAndGradient(at.sum(), torch.ones_like(at))


async def conversation(node: int, heard: list[Any]) -> Tensor:
    """Two gathers of odd sizes and mixed dtypes, held to the end of the step."""
    own = torch.Generator().manual_seed(node)
    first = await Gather((torch.rand(7, generator=own), torch.full((3,), node, dtype=torch.uint8)))
    second = await Gather((torch.rand((5, 1), generator=own, dtype=torch.float32),))
    for received in (first, second):
        heard.append({sender: [tensor.tolist() for tensor in payload] for sender, payload in received.items()})
    return LOSS


def in_lockstep(nodes: int) -> tuple[list[list[Any]], LockstepDriver]:
    heard: list[list[Any]] = [[] for _ in range(nodes)]
    driver = LockstepDriver([gradient] * nodes, poison=True)
    for round in range(ROUNDS):
        driver.advance({node: conversation(node, heard[node]) for node in range(nodes)}, round)
    return heard, driver


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("nodes", [1, NODES])
def test_ranks_hear_what_the_oracle_hears(nodes: int, wire: str) -> None:
    expected, oracle = in_lockstep(nodes)
    assert all(list(received) == list(range(nodes)) for heard in expected for received in heard)
    assert all(heard == expected[0] for heard in expected)

    def work(world: World) -> tuple[list[Any], int]:
        driver, heard = world.driver(None, gradient, run=1, epoch=0), []
        for round in range(ROUNDS):
            driver.advance({world.rank: conversation(world.rank, heard)}, round)
        driver.close()
        return heard, driver.bytes_sent[world.rank]

    sent = ROUNDS * (nodes - 1) * sum(FRAMES)
    assert on_ranks(nodes, work, wire=wire) == [(heard, sent) for heard in expected]
    assert set(oracle.bytes_sent.values()) == {sent}


def test_a_dry_run_counts_it() -> None:
    dry, heard = DryNode(NODES), list[Any]()

    async def step() -> Tensor:
        heard.append(await Gather((torch.empty(8, device="meta"), torch.empty(3, dtype=torch.uint8, device="meta"))))
        heard.append(await Gather((torch.empty((5, 1), device="meta"),)))
        return LOSS

    dry.advance(step())
    assert [list(received) for received in heard] == 2 * [list(range(NODES))]
    assert dry.rounds[0].gathers == [Gathered(size, NODES) for size in FRAMES]
    assert (dry.bytes_sent, dry.rounds[0].bytes_sent, dry.largest_frame) == ((NODES - 1) * sum(FRAMES), 0, 0)


def test_it_is_on_the_timeline_between_making_messages_and_reading_them() -> None:
    def work(world: World) -> tuple[list[Any], list[str]]:
        timeline, heard = Timeline(world.rank), list[Any]()
        driver = TracedDriver(world.driver(None, gradient, run=1, epoch=0, timeline=timeline), timeline)
        driver.advance({world.rank: conversation(world.rank, heard)}, 0)
        driver.close()
        return heard, [span.category for span in timeline.spans()]

    expected, _ = in_lockstep(NODES)
    for node, (heard, categories) in enumerate(on_ranks(NODES, work)):
        assert heard == expected[node][:2]
        assert categories == ["encode", "gather", "mix", "gather", "mix", "round"]


# What goes wrong.


def run(step: StepOf, nodes: int = NODES) -> None:
    LockstepDriver([gradient] * nodes).advance({node: step(node) for node in range(nodes)}, 0)


def test_one_that_a_node_leaves_out_is_a_deadlock() -> None:
    async def step(node: int) -> Tensor:
        if node == 1:
            await AllReduce(torch.zeros(1))
        elif node:
            await Gather((torch.zeros(1),))
        return LOSS

    with pytest.raises(DeadlockError, match="node 1 waits in AllReduce, node 2 waits in Gather"):
        run(step)


@pytest.mark.parametrize("other", [torch.zeros(3), torch.zeros(1, 2), torch.zeros(2, dtype=torch.int32)])
def test_payloads_that_differ_are_refused(other: Tensor) -> None:
    async def step(node: int) -> Tensor:
        await Gather((other if node == 2 else torch.zeros(2),))
        return LOSS

    with pytest.raises(RuntimeError, match=r"node 2 sent .* must be tensors of the same shapes and dtypes"):
        run(step)


def test_what_was_received_must_not_be_written_to() -> None:
    async def step(node: int) -> Tensor:
        received = await Gather((torch.zeros(2),))
        if node == 1:
            received[0][0].add_(1)
        return LOSS

    with pytest.raises(RuntimeError, match="a node changed a payload that it had received"):
        run(step)


def test_the_sender_may_change_its_tensor_afterwards() -> None:
    heard: dict[int, list[float]] = {}

    async def step(node: int) -> Tensor:
        x = torch.tensor([float(node)])
        received = await Gather((x,))
        x.fill_(99)
        await AllReduce(x)
        heard[node] = [payload[0].item() for payload in received.values()]
        return LOSS

    run(step)
    assert heard == {node: [0.0, 1.0, 2.0] for node in range(NODES)}


def lost(driver: Driver, node: int, payload: Payload, round: int) -> str:
    async def step() -> Tensor:
        received: Mapping[int, Payload] = await Gather(payload)
        assert received
        return LOSS

    with pytest.raises(LostNeighborError) as caught:
        driver.advance({node: step()}, round)
    return str(caught.value)


@pytest.mark.parametrize(
    ("run_of", "round_of", "told"),
    [
        (lambda rank: rank, lambda _: 4, "node 0 refused a message of node 1 in round 4: run 1, expected 0"),
        (lambda _: 7, lambda rank: 4 + rank, "node 0 refused a message of node 1 in round 4: round 5, expected 4"),
    ],
    ids=["another experiment's", "another round's"],
)
def test_another_message_is_refused(run_of: Callable[[int], int], round_of: Callable[[int], int], told: str) -> None:
    def work(world: World) -> str:
        driver = world.driver(None, gradient, run=run_of(world.rank), epoch=0)
        said = lost(driver, world.rank, (torch.zeros(3),), round_of(world.rank))
        driver.close()
        return said

    assert on_ranks(2, work)[0] == f"{told} (Gather); start every node with the same experiment"


def test_a_node_that_does_not_come_ends_it_within_the_timeout() -> None:
    done = Event()

    def work(world: World) -> str:
        driver = world.driver(None, gradient, run=1, epoch=0)
        driver.gather({world.rank: [0.0]})
        if world.rank == 2:
            done.wait(60)
            driver.close()
            return ""
        try:
            return lost(driver, world.rank, (torch.zeros(300_000),), round=2)
        finally:
            if world.rank == 0:
                done.set()
            driver.close()

    said = on_ranks(NODES, work, timeout_s=1.0)[0]
    assert "for all nodes in round 2" in said
    assert said.endswith("(Gather, 1.2 MB, gloo)")

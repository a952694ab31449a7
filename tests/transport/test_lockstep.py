"""The oracle: how it matches messages, what it refuses, and that a failed round leaves nothing behind."""

import gc
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from decentral.peer import (
    AllReduce,
    Collect,
    Exchange,
    Gradient,
    LossAndGradient,
    Messages,
    Mix,
    Payload,
    Post,
)
from decentral.topology.mixing import Row
from decentral.transport.lockstep import DeadlockError, LockstepDriver
from tests.transport.messages import both_ways

LOSS = torch.zeros(())
StepOf = Callable[[int], Coroutine[Any, Any, Tensor]]


def gradient(at: Tensor) -> LossAndGradient:
    return LossAndGradient(at.sum(), torch.ones_like(at))


def driver(nodes: int, poison: bool = False) -> LockstepDriver:
    return LockstepDriver([gradient] * nodes, poison)


def run(lockstep: LockstepDriver, step: StepOf, round: int = 0) -> dict[int, Tensor]:
    return lockstep.advance({node: step(node) for node in lockstep.hosted}, round)


def number(value: float) -> Payload:
    return (torch.tensor([value]),)


def heard(received: Mapping[int, Payload]) -> dict[int, float]:
    return {sender: payload[0].item() for sender, payload in received.items()}


def others(node: int, nodes: int) -> tuple[int, ...]:
    return tuple(other for other in range(nodes) if other != node)


def test_received_payloads_come_in_ascending_order_of_senders() -> None:
    orders = {}

    async def step(node: int) -> Tensor:
        received = await Exchange(both_ways(number(node), tuple(reversed(others(node, 4)))))
        orders[node] = list(received)
        return LOSS

    run(driver(4), step)
    assert orders == {node: list(others(node, 4)) for node in range(4)}


def test_nodes_are_answered_in_ascending_order() -> None:
    asked = []

    def gradient_of(node: int) -> Callable[[Tensor], LossAndGradient]:
        def answer(at: Tensor) -> LossAndGradient:
            asked.append(node)
            return gradient(at)

        return answer

    async def step() -> Tensor:
        return (await Gradient(torch.zeros(1))).loss

    lockstep = LockstepDriver([gradient_of(node) for node in range(3)])
    lockstep.advance({node: step() for node in (2, 0, 1)}, 0)
    assert asked == [0, 1, 2]


@given(st.permutations(range(4)), st.permutations(range(4)))
def test_each_post_meets_the_neighbors_post_of_the_same_place(one: list[int], other: list[int]) -> None:
    """Messages between two nodes match first in, first out, in whatever order they are collected."""
    found: dict[int, dict[int, float]] = {0: {}, 1: {}}

    async def step(node: int) -> Tensor:
        tickets = [await Post(both_ways(number(10 * node + place), (1 - node,))) for place in range(4)]
        for place in (one, other)[node]:
            found[node] |= {place: heard(await Collect(tickets[place]))[1 - node]}
        return LOSS

    run(driver(2), step)
    assert found == {0: {k: 10.0 + k for k in range(4)}, 1: {k: float(k) for k in range(4)}}


def test_a_ticket_may_be_collected_in_a_later_round() -> None:
    """Delayed gossip: what was posted in round k is mixed in round k + 1, while the next message is under way."""
    lockstep, tickets, found = driver(2), {}, []

    async def step(node: int, round: int) -> Tensor:
        ticket = await Post(both_ways(number(10 * round + node), (1 - node,)))
        if node in tickets:
            found.append(heard(await Collect(tickets[node])))
        tickets[node] = ticket
        return LOSS

    for round in range(3):
        lockstep.advance({node: step(node, round) for node in (0, 1)}, round)
    assert found == [{1: 1.0}, {0: 0.0}, {1: 11.0}, {0: 10.0}]


def test_a_posted_payload_is_what_it_was_when_posted() -> None:
    """The sender may change its tensor once its own exchange is done, while a slower neighbor has yet to look."""
    found = {}

    async def step(node: int) -> Tensor:
        x = torch.tensor([float(node)])
        for _ in range(3 if node == 1 else 0):
            await Gradient(x)
        received = await Exchange(both_ways((x,), (1 - node,)))
        found[node] = received[1 - node][0].clone()
        x.fill_(99)
        found[node, "later"] = received[1 - node][0].clone()
        return LOSS

    run(driver(2), step)
    assert found == {0: 1.0, (0, "later"): 1.0, 1: 0.0, (1, "later"): 0.0}


def test_all_reduce_is_the_mean_and_each_nodes_own() -> None:
    means = {}

    async def step(node: int) -> Tensor:
        means[node] = await AllReduce(torch.tensor([float(node)]))
        return LOSS

    run(driver(3), step)
    assert all(mean.item() == 1.0 for mean in means.values())
    means[0].fill_(7)
    assert means[1].item() == 1.0


def test_groups_average_by_themselves_and_whenever_they_are_ready() -> None:
    """Nodes 0 and 2 average twice while 1 and 3 first hear of each other; all together come last."""
    means: dict[int, list[float]] = {node: [] for node in range(4)}

    async def step(node: int) -> Tensor:
        x, together = torch.tensor([float(2**node)]), (node % 2, node % 2 + 2)
        if node % 2:
            await Exchange(both_ways((x,), (4 - node,)))
        for asked in (AllReduce(x, together), AllReduce(2 * x, together), AllReduce(x)):
            means[node].append((await asked).item())
        return LOSS

    oracle = driver(4)
    run(oracle, step)
    assert means == {0: [2.5, 5.0, 3.75], 1: [5.0, 10.0, 3.75], 2: [2.5, 5.0, 3.75], 3: [5.0, 10.0, 3.75]}
    assert oracle.bytes_sent == {0: 14, 1: 86, 2: 14, 3: 86}, "4 and 4 among two, 6 among four; a frame is 72"


def test_a_group_of_which_one_is_missing_is_a_deadlock() -> None:
    async def step(node: int) -> Tensor:
        await AllReduce(torch.zeros(1), (0, 1) if node == 0 else (1, 2))
        return LOSS

    assert deadlock(3, step).startswith("round 0: no node can go on: node 0 waits in AllReduce")


@pytest.mark.parametrize("among", [(1, 2), (2, 0), (0, 0), (0, 3), ()], ids=str)
def test_a_mean_among_others_or_out_of_order_is_refused(among: tuple[int, ...]) -> None:
    async def step(node: int) -> Tensor:
        return await AllReduce(torch.zeros(1), among)

    with pytest.raises(ValueError, match=r"node 0 asked for the mean among .*; required: ascending nodes below 3"):
        run(driver(3), step)


def deadlock(nodes: int, step: StepOf, round: int = 0) -> str:
    with pytest.raises(DeadlockError) as caught:
        run(driver(nodes), step, round)
    return str(caught.value)


def test_asking_for_what_no_one_sends_is_a_deadlock_with_names() -> None:
    async def step(node: int) -> Tensor:
        if node != 1:
            await Exchange(both_ways(number(0), (1,)))
        return LOSS

    message = deadlock(3, step, round=7)
    assert message == "round 7: no node can go on: node 0 waits for node 1, node 2 waits for node 1"


def test_one_exchange_too_many_is_a_deadlock() -> None:
    async def step(node: int) -> Tensor:
        for _ in range(1 + node):
            await Exchange(both_ways(number(0), (1 - node,)))
        return LOSS

    assert deadlock(2, step) == "round 0: no node can go on: node 1 waits for node 0"


def test_an_all_reduce_that_one_node_leaves_out_is_a_deadlock() -> None:
    async def step(node: int) -> Tensor:
        if node != 2:
            await AllReduce(torch.zeros(1))
        return LOSS

    assert deadlock(3, step) == "round 0: no node can go on: node 0 waits in AllReduce, node 1 waits in AllReduce"


def test_exchanges_of_different_places_do_not_match() -> None:
    """Symptom: node 0's second exchange met node 1's first here, and the frames of a real run refused each other, for
    their headers name round and place. The oracle counts as they do.
    """

    async def step(node: int) -> Tensor:
        if node == 0:
            await Exchange(both_ways(number(0), ()))
        await Exchange(both_ways(number(0), (1 - node,)))
        return LOSS

    assert deadlock(2, step) == "round 0: no node can go on: node 0 waits for node 1, node 1 waits for node 0"


def test_all_reduce_against_exchange_is_a_deadlock() -> None:
    async def step(node: int) -> Tensor:
        await (AllReduce(torch.zeros(1)) if node == 0 else Exchange(both_ways(number(0), (0,))))
        return LOSS

    assert "node 0 waits in AllReduce, node 1 waits for node 0" in deadlock(2, step)


@pytest.mark.parametrize(
    "other", [torch.zeros(3), torch.zeros(1, 2), torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.int32)]
)
def test_an_exchange_of_unlike_payloads_is_refused(other: Tensor) -> None:
    """Symptom: an algorithm whose payload depends on the node ran here and killed the first real process, since gloo
    ends a receiver whose buffer is too small. What the wire cannot carry, the oracle must not accept.
    """

    async def step(node: int) -> Tensor:
        await Exchange(both_ways((other if node else torch.zeros(2),), (1 - node,)))
        return LOSS

    with pytest.raises(RuntimeError, match="same shapes and dtypes") as caught:
        run(driver(2), step)
    assert "node 1 sent" in str(caught.value)
    assert "to node 0" in str(caught.value)


@pytest.mark.parametrize("guilty", [0, 1, 2])
@pytest.mark.filterwarnings("error")
def test_an_exception_in_a_step_leaves_no_half_round(guilty: int) -> None:
    """A step that raises leaves its neighbors' messages in the mail. Were they kept, whoever takes the round again and
    collects before the others have posted would hear the failed round's, in silence. Nor may a step stay suspended.
    """
    lockstep, closed, found = driver(3), [], {}

    async def failing(node: int) -> Tensor:
        try:
            if node == guilty:
                raise ZeroDivisionError("mine")
            await Exchange(both_ways(number(-1), others(node, 3)))
            return LOSS
        finally:
            closed.append(node)

    async def step(node: int) -> Tensor:
        for _ in range(node):
            await Gradient(torch.zeros(1))
        found[node] = heard(await Exchange(both_ways(number(node), others(node, 3))))
        return LOSS

    with pytest.raises(ZeroDivisionError, match="mine"):
        run(lockstep, failing)
    gc.collect()
    assert guilty in closed
    assert set(closed) == set(range(guilty + 1)), "steps that had begun are ended, the others never began"
    run(lockstep, step)
    assert found == {node: {other: float(other) for other in others(node, 3)} for node in range(3)}


def test_after_a_deadlock_the_round_can_be_taken_again() -> None:
    lockstep, found = driver(2), {}

    async def one_sided(node: int) -> Tensor:
        if node == 1:
            await Exchange(both_ways(number(-1), (0,)))
        return LOSS

    async def step(node: int) -> Tensor:
        for _ in range(node):
            await Gradient(torch.zeros(1))
        found[node] = heard(await Exchange(both_ways(number(node), (1 - node,))))
        return LOSS

    with pytest.raises(DeadlockError):
        run(lockstep, one_sided)
    run(lockstep, step)
    assert found == {0: {1: 1.0}, 1: {0: 0.0}}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.uint8, torch.bool])
def test_poison_overwrites_answers_of_every_dtype_when_the_step_ends(dtype: torch.dtype) -> None:
    """A method that keeps an alias of an answer works here and breaks on real links, which reuse the memory. Poison
    shows it; packed integer payloads must be poisoned too, where NaN does not exist.
    """
    kept: list[Tensor] = []

    async def step(node: int) -> Tensor:
        received = await Exchange(both_ways((torch.zeros(3, dtype=dtype),), (1 - node,)))
        kept.append(received[1 - node][0])
        assert not kept[-1].any()
        kept.append((await Gradient(torch.zeros(2))).gradient)
        return LOSS

    run(driver(2, poison=True), step)
    assert all((tensor != 0).all() for tensor in kept)


def test_bytes_are_counted_by_sender() -> None:
    async def step(node: int) -> Tensor:
        await Exchange(both_ways((torch.zeros(3),), others(node, 3) if node != 2 else (0, 1)))
        return LOSS

    lockstep = driver(3)
    run(lockstep, step)
    assert lockstep.bytes_sent == dict.fromkeys(range(3), 2 * (64 + 16))


def test_what_was_received_must_not_be_written_to() -> None:
    """Over shared memory it is the neighbor's own frame, which others still read: silent there, so refused here."""

    async def step(node: int) -> Tensor:
        received = await Exchange(both_ways(number(node), (1 - node,)))
        if node == 1:
            received[0][0].add_(1)
        return LOSS

    with pytest.raises(RuntimeError, match="node 1 changed a payload that it had received"):
        run(driver(2), step)


def test_who_only_sends_waits_for_nobody_and_who_only_receives_sends_nothing() -> None:
    order, heard_by = [], {}

    async def step(node: int) -> Tensor:
        for _ in range(2 if node == 0 else 0):
            await Gradient(torch.zeros(1))
        messages = Messages.alike(number(node), (node + 1,) if node < 2 else (), (node - 1,) if node else ())
        heard_by[node] = heard(await Exchange(messages))
        order.append(node)
        return LOSS

    lockstep = driver(3)
    run(lockstep, step)
    assert heard_by == {0: {}, 1: {0: 0.0}, 2: {1: 1.0}}
    assert order.index(2) < order.index(1), "node 1 waits for node 0, which is late"
    assert lockstep.bytes_sent == {0: 72, 1: 72, 2: 0}


def test_each_neighbor_gets_its_own_payload() -> None:
    found = {}

    async def step(node: int) -> Tensor:
        to = {other: number(10 * node + other) for other in others(node, 3)}
        found[node] = heard(await Exchange(Messages(to, others(node, 3), number(0))))
        return LOSS

    lockstep = driver(3)
    run(lockstep, step)
    assert found == {node: {other: 10.0 * other + node for other in others(node, 3)} for node in range(3)}
    assert lockstep.bytes_sent == dict.fromkeys(range(3), 2 * 72)


def test_a_message_that_nobody_receives_is_refused() -> None:
    """Over real links the sender would wait until its patience is over."""

    async def step(node: int) -> Tensor:
        await Exchange(Messages.alike(number(0), (1,) if node == 0 else (), ()))
        return LOSS

    with pytest.raises(
        RuntimeError, match=r"node 0 sent node 1 a message that it does not receive \(exchange 0 of round 4"
    ):
        run(driver(2), step, round=4)


def test_payloads_for_neighbors_that_are_unlike_are_refused() -> None:
    async def step(node: int) -> Tensor:
        to = {other: (torch.zeros(other + 1),) for other in others(node, 3)}
        await Exchange(Messages(to, others(node, 3), (torch.zeros(1),)))
        return LOSS

    with pytest.raises(RuntimeError, match=r"node 0 sent .* to node 1 in an exchange of .*same shapes and dtypes"):
        run(driver(3), step)


def test_rows_of_one_array_may_be_mixed_in_place() -> None:
    """torch counts writes by the whole array: a row was taken for changed when another was mixed."""
    X, before = (torch.arange(6.0).reshape(3, 2) for _ in range(2))

    async def step(node: int) -> Tensor:
        weights = dict.fromkeys(range(3), 1 / 3)
        await Mix(X[node], Row(node, weights, others(node, 3)))
        return LOSS

    run(driver(3), step)
    torch.testing.assert_close(X, before.mean(dim=0).expand(3, 2))


def test_a_row_that_is_changed_behind_a_post_is_still_told() -> None:
    X = torch.zeros(2, 3)

    async def step(node: int) -> Tensor:
        ticket = await Post(both_ways((X[node],), (1 - node,)))
        X[node] += 1
        await Collect(ticket)
        return LOSS

    with pytest.raises(RuntimeError, match="node 0 changed a payload between Post and Collect"):
        run(driver(2), step)

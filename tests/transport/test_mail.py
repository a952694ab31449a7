"""Letters in the lockstep simulator: in order, counted, copied, and a deadlock that names who waits."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import torch
from torch import Tensor

from decentral.peer import Collect, Exchange, Letter, LossAndGradient, Messages, Payload, Post, Receive, Send
from decentral.transport.driver import Step
from decentral.transport.frames import HEADER_BYTES
from decentral.transport.lockstep import DeadlockError, LockstepDriver

LOSS = torch.zeros(())
BIG, SMALL = (torch.zeros(3),), (torch.zeros((), dtype=torch.int64),)
KINDS: tuple[Payload, ...] = BIG, SMALL
Work = Callable[[int], Coroutine[Any, Any, None]]


def lockstep(nodes: int, poison: bool = False) -> LockstepDriver:
    return LockstepDriver([lambda x: LossAndGradient(LOSS, x)] * nodes, poison)


def played(driver: LockstepDriver, work: Work, round: int = 0) -> None:
    async def step(node: int) -> Tensor:
        await work(node)
        return LOSS

    steps: dict[int, Step] = {node: step(node) for node in driver.hosted}
    driver.advance(steps, round)


def test_letters_come_in_order_with_their_kind_and_are_counted() -> None:
    driver, came = lockstep(3), list[tuple[int, int, float]]()

    async def work(node: int) -> None:
        if node == 0:
            for _ in range(3):
                letter = await Receive(KINDS)
                came.append((letter.sender, letter.kind, float(letter.payload[0].sum())))
            return
        await Send(0, (torch.full((3,), float(node)),), KINDS)
        if node == 1:
            await Send(0, (torch.tensor(7),), KINDS)

    played(driver, work)
    assert sorted(came) == [(1, 0, 3.0), (1, 1, 7.0), (2, 0, 6.0)]
    assert came.index((1, 0, 3.0)) < came.index((1, 1, 7.0))
    assert driver.bytes_sent == {0: 0, 1: 2 * HEADER_BYTES + 16 + 8, 2: HEADER_BYTES + 16}


def test_a_payload_may_change_once_it_is_sent_and_a_letter_of_an_earlier_round_still_comes() -> None:
    driver = lockstep(2)

    async def send(node: int) -> None:
        if node == 0:
            x = torch.ones(3)
            await Send(1, (x,), KINDS)
            x.zero_()

    async def receive(node: int) -> None:
        if node == 1:
            letter: Letter = await Receive(KINDS)
            assert letter.payload[0].tolist() == [1, 1, 1]

    played(driver, send, 0)
    played(driver, receive, 1)


def test_a_letter_is_poisoned_by_the_next_and_must_not_be_written_to() -> None:
    async def keep(node: int) -> None:
        if node == 0:
            await Send(1, (torch.ones(3),), KINDS)
            await Send(1, (torch.tensor(1),), KINDS)
            return
        first = await Receive(KINDS)
        await Receive(KINDS)
        assert first.payload[0].isnan().all()

    async def write(node: int) -> None:
        if node == 0:
            await Send(1, (torch.ones(3),), KINDS)
        else:
            (await Receive(KINDS)).payload[0].add_(1)

    played(lockstep(2, poison=True), keep)
    with pytest.raises(RuntimeError, match="node 1 changed a payload that it had received"):
        played(lockstep(2), write)


def test_a_deadlock_names_who_waits_for_a_letter() -> None:
    async def wait(node: int) -> None:
        if node:
            await Receive(KINDS)

    with pytest.raises(DeadlockError, match="round 0: no node can go on: node 1 waits for a letter, node 2"):
        played(lockstep(3), wait)


@pytest.mark.parametrize("letters_first", [True, False])
def test_letters_and_exchanges_in_one_run_are_refused(letters_first: bool) -> None:
    async def work(node: int) -> None:
        messages = Messages.alike(BIG, (1 - node,), (1 - node,))
        if letters_first:
            await Send(1 - node, BIG, KINDS)
            await Exchange(messages)
        else:
            await Collect(await Post(messages))
            await Send(1 - node, BIG, KINDS)

    with pytest.raises(RuntimeError, match="sends letters and exchanges in one run"):
        played(lockstep(2), work)


def test_a_letter_of_no_known_kind_or_to_nobody_is_refused() -> None:
    async def strange(node: int) -> None:
        await Send(1 - node, (torch.zeros(4),), KINDS)

    async def lost(node: int) -> None:
        await Send(9, BIG, KINDS)

    with pytest.raises(RuntimeError, match=r"node 0 sent a letter of .*\(4,\).*, and the run's letters are"):
        played(lockstep(2), strange)
    with pytest.raises(RuntimeError, match="node 0 sent a letter to node 9, which there is not"):
        played(lockstep(2), lost)

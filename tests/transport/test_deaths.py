"""Nodes that die in the lockstep simulator: what still comes of them, who is told, and that the others go on."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from decentral.peer import GONE, Letter, LossAndGradient, Payload, Receive, Send
from decentral.transport.driver import Step
from decentral.transport.lockstep import DeadlockError, LockstepDriver

LOSS = torch.zeros(())
NUMBER = (torch.zeros((), dtype=torch.int64),)
KINDS: tuple[Payload, ...] = ((torch.zeros(3),), NUMBER)
PATH = {0: [1], 1: [0, 2], 2: [1]}
Came = list[tuple[int, int]]


def dying(deaths: Mapping[int, int]) -> LockstepDriver:
    answers = [lambda x: LossAndGradient(LOSS, x)] * len(PATH)
    return LockstepDriver(answers, poison=True, deaths=deaths, neighbors=PATH)


async def told(count: int, came: Came) -> None:
    """Of so many letters, who sent them and what is in them: GONE where the sender is."""
    for _ in range(count):
        letter: Letter = await Receive(KINDS)
        came.append((letter.sender, GONE if letter.kind == GONE else int(letter.payload[0])))


def played(driver: LockstepDriver, work: Mapping[int, "Toy"], round: int = 0) -> dict[int, Tensor]:
    steps: dict[int, Step] = {node: toy.step() for node, toy in work.items()}
    return driver.advance(steps, round)


class Toy:
    """A node that sends numbers to node `to`, and then waits for some letters."""

    def __init__(self, to: int, numbers: range, waits: int) -> None:
        self.to, self.numbers, self.waits, self.came = to, numbers, waits, Came()

    async def step(self) -> Tensor:
        for number in self.numbers:
            await Send(self.to, (torch.tensor(number),), KINDS)
        await told(self.waits, self.came)
        return LOSS


@pytest.mark.parametrize("effect", range(5))
def test_what_a_node_sent_before_it_died_comes_and_then_the_news(effect: int) -> None:
    driver = dying({0: effect})
    work = {0: Toy(1, range(4), 1), 1: Toy(2, range(0), effect + 1), 2: Toy(1, range(0), 0)}
    losses = played(driver, work)
    assert work[1].came == [(0, number) for number in range(effect)] + [(0, GONE)]
    assert sorted(losses) == [1, 2]
    assert driver.dead == {0}


def test_effects_are_counted_over_rounds_and_the_dead_take_no_step() -> None:
    driver = dying({0: 3})
    work = {0: Toy(1, range(2), 0), 1: Toy(2, range(0), 2), 2: Toy(1, range(0), 0)}
    assert sorted(played(driver, work, 0)) == [0, 1, 2]
    assert sorted(played(driver, work, 1)) == [1, 2]
    assert work[1].came == [(0, 0), (0, 1), (0, 0), (0, GONE)]
    work[1].waits = 0
    assert sorted(played(driver, work, 2)) == [1, 2]


def test_each_neighbor_is_told_once_and_nobody_else() -> None:
    driver = dying({1: 0})
    work = {0: Toy(1, range(0), 1), 1: Toy(0, range(3), 0), 2: Toy(1, range(0), 1)}
    played(driver, work)
    assert (work[0].came, work[2].came) == ([(1, GONE)], [(1, GONE)])
    with pytest.raises(DeadlockError, match="node 0 waits for a letter, node 2 waits for a letter"):
        played(driver, work, 1)
    driver = dying({2: 0})
    with pytest.raises(DeadlockError, match="node 0 waits for a letter"):
        played(driver, {0: Toy(1, range(0), 1), 1: Toy(0, range(0), 1), 2: Toy(1, range(1), 0)})


def test_a_letter_to_the_dead_is_dropped() -> None:
    driver = dying({2: 1})
    work = {0: Toy(1, range(0), 0), 1: Toy(2, range(5), 1), 2: Toy(1, range(0), 6)}
    played(driver, work)
    played(driver, {1: Toy(2, range(5), 0)}, 1)
    sent = driver.bytes_sent[1]
    played(driver, {1: Toy(2, range(5), 0)}, 2)
    assert driver.bytes_sent[1] == sent > 0
    assert work[1].came == [(2, GONE)]


def test_who_dies_must_have_neighbors_to_tell() -> None:
    with pytest.raises(ValueError, match="node 1 dies"):
        LockstepDriver([lambda x: LossAndGradient(LOSS, x)] * 2, deaths={1: 0}, neighbors={0: [1]})

"""`decentral.wrap` finds a consensus step for the model that it is given, and says so once; a given one stays."""

import pytest
import torch
from torch import nn

from decentral.algorithms.choco import Choco
from decentral.transport.world import World
from decentral.wrapping.session import Session
from tests.contract.ranks import on_ranks

CHOCO = {"name": "choco", "compression": {"name": "top-k", "fraction": 0.5}}


def wrapped_step(session: Session, **options: object) -> float:
    torch.manual_seed(0)
    model = nn.Linear(6, 5)
    _, optimizer = session.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1), algorithm=CHOCO | options)
    algorithm = session.wrapped(optimizer).rounds._algorithm
    assert isinstance(algorithm, Choco)
    assert isinstance(algorithm.consensus_step, float)
    return algorithm.consensus_step


def test_all_ranks_take_what_rank_0_finds_and_it_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    def work(world: World) -> tuple[float, float]:
        session = Session(world)
        try:
            return wrapped_step(session), wrapped_step(session, order="adapt-while-communicate")
        finally:
            session.close()

    steps = on_ranks(3, work)
    assert len(set(sum(steps, ()))) == 1
    assert 0.1 < steps[0][0] <= 1
    told = [line for line in capfd.readouterr().err.splitlines() if "consensus step" in line]
    assert len(told) == 1
    assert "for top-k fraction=0.5 on ring of 3" in told[0]


def test_a_given_one_stays(session: Session) -> None:
    assert wrapped_step(session, consensus_step=0.125) == 0.125

"""Every method of a hub over real links, ranks as threads: nobody is stuck, and each job comes back once."""

from time import sleep
from typing import Any

import pytest
import torch
from torch import Tensor

from decentral.peer import LossAndGradient
from decentral.transport.world import World
from tests.contract.free_runs import Steps
from tests.contract.problems import LAYOUTS, Quadratics
from tests.contract.ranks import on_ranks
from tests.contract.runs import peer_at
from tests.contract.test_hub import EVERYONE, common_start, delays, method, star

pytestmark = pytest.mark.timeout(60)

NODES, SLOW = 5, 3


def served(which: str, wire: str, **until: Any) -> Steps:
    """The hub's part of a run in which one node is ten times slower; its others' steps are in `seconds`."""
    problem, topology, starts = Quadratics.draw(NODES), star(NODES - 1), torch.from_numpy(common_start(NODES - 1))
    options = dict(EVERYONE[which])
    if "every_s" in options:
        options["every_s"] = 0.015

    def work(world: World) -> Steps:
        answer = problem.gradient(world.rank)

        def gradient(at: Tensor) -> LossAndGradient:
            sleep(0.02 if world.rank == SLOW else 0.002)
            return answer(at)

        driver = world.driver(topology, gradient, run=1, epoch=0, waits=False)
        algorithm = method(which.split()[0], **options)
        peers = [peer_at(topology, node, LAYOUTS["one block"]) for node in range(NODES)]
        states = [algorithm.init(starts[peer.node].clone(), peer) for peer in peers]
        run = Steps(algorithm, peers, states, until.get("rounds"), until.get("duration_s", float("inf")))
        run.models, run.seconds = [[] for _ in states], [[] for _ in states]
        try:
            driver.run_free(run)
        except BaseException:
            driver._failed = True
            raise
        finally:
            driver.close()
        return run

    runs = on_ranks(NODES, work, wire=wire)
    runs[0].seconds = [run.seconds[node] for node, run in enumerate(runs)]
    return runs[0]


@pytest.mark.parametrize(
    ("which", "wire"),
    [*((which, "gloo") for which in EVERYONE), ("async-sgd", "shared-memory"), ("fedfix", "shared-memory")],
)
def test_a_run_on_links_ends_and_loses_nothing(which: str, wire: str) -> None:
    rounds = 6
    run = served(which, wire, rounds=rounds)
    hub, algorithm = run.states[0], run.algorithm
    assert run.made == [rounds] * NODES
    assert {*hub.gone} <= {*range(1, NODES)}  # the last one's word may come after the last gradient
    assert not hub.out()
    assert hub.computed == rounds * (NODES - 1)
    assert 0 < sum(delays(run)) <= hub.computed
    assert hub.changes > 0
    assert algorithm.max_delay is None or len(delays(run)) <= algorithm.max_delay + 1
    assert not torch.equal(hub.x, torch.from_numpy(common_start(1)[0]))


def test_a_run_for_a_time_leaves_no_job_out_and_does_not_wait_for_the_slow() -> None:
    run = served("async-sgd", "gloo", duration_s=0.4)
    assert not run.states[0].out()
    assert run.states[0].computed == sum(run.made[1:])
    assert min(run.made[1], run.made[2], run.made[4]) > run.made[SLOW] > 0

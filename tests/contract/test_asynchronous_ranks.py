"""Every asynchronous method over real links, ranks as threads: nobody is stuck, nothing is lost, nobody waits for the
slow one who is not told to.
"""

from time import sleep
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from decentral.algorithms import ASYNCHRONOUS_METHODS
from decentral.fused import warm_up
from decentral.peer import LossAndGradient
from decentral.topology.topology import Topology
from decentral.transport.world import World
from tests.contract.free_runs import Steps
from tests.contract.oracle import Matrix
from tests.contract.problems import DIMENSION, LAYOUTS, flat, graph, pushing
from tests.contract.ranks import on_ranks
from tests.contract.runs import peer_at
from tests.contract.test_asynchronous import CONSERVING, method

pytestmark = pytest.mark.timeout(60)

WAITING: dict[str, dict[str, Any]] = {"swift": {}, "swift max_delay": {"max_delay": 1}}
CASES = {**CONSERVING, **WAITING}
NODES, SLOW = 7, 3


def test_every_method_is_tried() -> None:
    assert {which.split()[0] for which in CASES} == {*ASYNCHRONOUS_METHODS}


def gossiped(which: str, starts: Matrix, rounds: int, wire: str) -> list[tuple[Tensor, float, list[int]]]:
    """Of each node: its model after nothing but gossip, its weight in sums, and the others' steps when it was through.

    The tree has a node that is slow, with neighbors that have only it.
    """
    name, made = which.split()[0], [0] * NODES
    topology: Topology = pushing(graph("tree-7"))[0] if name == "async-gradient-push" else graph("tree-7")

    def work(world: World) -> tuple[Tensor, float, list[int]]:
        (still,) = {*flat(NODES)}

        def gradient(at: Tensor) -> LossAndGradient:
            sleep(0.03 if world.rank == SLOW else 0.002)
            made[world.rank] += 1
            return still(at)

        driver = world.driver(topology, gradient, run=1, epoch=0, waits=False)
        algorithm = method(name, **CASES[which])
        peers = [peer_at(topology, node, LAYOUTS["one block"]) for node in range(NODES)]
        states = [algorithm.init(torch.from_numpy(np.array(starts[peer.node])), peer) for peer in peers]
        run = Steps(algorithm, peers, states, rounds, float("inf"))
        run.models, run.seconds = [[] for _ in states], [[] for _ in states]
        then = list[int]()
        serve = run.serve

        def served(node: int) -> Any:
            then.extend(made)
            return serve(node)

        run.serve = served  # type: ignore[method-assign]
        try:
            driver.run_free(run)
        except BaseException:
            driver._failed = True
            raise
        finally:
            driver.close()
        state = states[world.rank]
        assert len(run.seconds[world.rank]) == rounds
        return state.x, float(getattr(state, "weight", 1.0)), then

    return on_ranks(NODES, work, wire=wire)


@pytest.mark.parametrize("wire", ["gloo", "shared-memory"])
@pytest.mark.parametrize("which", CASES)
def test_a_run_on_links_ends_and_loses_nothing(which: str, wire: str) -> None:
    warm_up(torch.float64)
    starts = np.random.default_rng(5).standard_normal((NODES, DIMENSION))
    found = gossiped(which, starts, 10, wire)
    final = torch.stack([x for x, _, _ in found]).numpy()
    spread, before = np.ptp(final, axis=0).max(), np.ptp(starts, axis=0).max()
    assert spread < before
    if which in CONSERVING:
        weights = np.array([weight for _, weight, _ in found])
        assert weights.sum() == pytest.approx(NODES, rel=1e-12)
        np.testing.assert_allclose(weights @ final, starts.sum(0), rtol=0, atol=1e-11 * NODES)
    if "max_delay" not in which:
        for node, (_, _, then) in enumerate(found):
            assert node == SLOW or then[SLOW] < 10  # who is fast was through before

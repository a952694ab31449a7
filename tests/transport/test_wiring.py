"""Each edge takes its own wire: two hosts of two ranks each, as threads that believe themselves on one or the other."""

from threading import local

import networkx as nx
import pytest
import torch

from decentral.topology.topology import Topology
from decentral.transport import shared
from decentral.transport.world import World
from tests.contract.problems import LAYOUTS, Quadratics
from tests.contract.ranks import on_ranks
from tests.contract.runs import Run, play, same, simulate
from tests.contract.test_algorithms import CASES, OPTIMIZERS, built, common_start

pytestmark = pytest.mark.timeout(90)

RING = Topology.static("ring", nx.cycle_graph(4), "metropolis")
ROUNDS = 7


@pytest.mark.parametrize("label", ["atc", "awc every 3"])
@pytest.mark.parametrize("hosts", [("a", "a", "b", "b"), ("a", "b", "a", "b"), ("a", "b", "b", "b")], ids="".join)
def test_a_run_on_two_hosts_takes_shared_memory_within_and_gloo_between(
    hosts: tuple[str, ...], label: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = local()
    monkeypatch.setattr(shared, "locality", lambda: here.name)
    problem, case = Quadratics.draw(4, noisy_rounds=ROUNDS), CASES["dsgd"][label]
    algorithm, start = built("dsgd", case, OPTIMIZERS["momentum"]), torch.from_numpy(common_start(problem))

    def work(world: World) -> tuple[dict[int, str], Run]:
        here.name = hosts[world.rank]
        driver = world.driver(RING, problem.gradient(world.rank), run=1, epoch=0, largest=64 + start[0].nbytes)
        try:
            names = {neighbor: link.name for neighbor, link in driver._exchanges.links.items()}
            return names, play(algorithm, driver, RING, start, ROUNDS, LAYOUTS["many blocks"])
        finally:
            driver.close()

    simulated = simulate(algorithm, RING, problem.answers(), start, ROUNDS, layout=LAYOUTS["many blocks"])
    for rank, (names, run) in enumerate(on_ranks(4, work, wire="auto")):
        assert names == {
            other: "shared memory" if hosts[other] == hosts[rank] else "gloo" for other in RING.neighbors(rank)
        }
        assert same(run.states[rank], simulated.states[rank])
        assert run.bytes_sent == {rank: simulated.bytes_sent[rank]}

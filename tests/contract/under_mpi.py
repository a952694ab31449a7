"""The common battery as the ranks of a real mpirun: `mpirun -n 4 python -m tests.contract.under_mpi OUT`.

Each rank runs every algorithm, order, optimizer, dtype and layout over MPI links, the directed schedules, and the token
methods too. It compares its state with the lockstep simulator's, and writes what it found to OUT/rank-I.json.
"""

import json
import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import networkx as nx
import torch

from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.dsgd import DSGD
from decentral.algorithms.relay_sgd import RelaySGD
from decentral.algorithms.stochastic_gradient_push import StochasticGradientPush
from decentral.config import Transport
from decentral.topology.topology import Topology
from decentral.transport.launcher import launched
from decentral.transport.rank import RankDriver
from decentral.transport.world import World
from tests.contract import test_tokens
from tests.contract.directed import COLUMN, DOUBLY, Addressed, Push, directed, in_lockstep, on_a_rank, plain
from tests.contract.problems import LAYOUTS, shipped
from tests.contract.runs import Run, same
from tests.contract.test_algorithms import CASES, OPTIMIZERS, Case, built, few, run_one, simulate_few
from tests.transport.test_free import answered, summed
from tests.transport.test_rank import gradient

NODES = 4


def variations() -> Iterator[tuple[str, Case, str, str, str]]:
    """name, case, optimizer, dtype and layout of each run; of a brief case the last alone."""
    for name, cases in CASES.items():
        for case in cases.values():
            if few(case).nodes != NODES:
                continue
            axes = product(case.among(("momentum", "adamw")), ("float64", "float32"), LAYOUTS)
            for optimizer, dtype, layout in [*axes][-1:] if case.brief else axes:
                yield name, case, optimizer, dtype, layout


def further_variations() -> Iterator[tuple[Topology, Algorithm]]:
    """Each run on a directed graph, and one with two exchanges under way at once."""
    yield shipped("double_binary_trees", NODES, apart=True), RelaySGD(**plain(trees=2))
    for on in (*DOUBLY, *COLUMN):
        if directed(on).nodes != NODES:
            continue
        for overlaps in (False, True):
            yield directed(on), Push(**plain(overlaps=overlaps))
            yield directed(on), Addressed(**plain(overlaps=overlaps))
            yield directed(on), StochasticGradientPush(**plain(delay=2 * overlaps))
        for order in ("adapt-then-combine", "combine-then-adapt", "adapt-while-communicate") if on in DOUBLY else ():
            yield directed(on), DSGD(**plain(order=order))


def alike(run: Run, simulated: Run, rank: int, tolerance: float | None = None) -> bool:
    """Whether a rank did what the simulator did, and sent as much."""
    counted = run.bytes_sent == {rank: simulated.bytes_sent[rank]}
    return same(run.states[rank], simulated.states[rank], tolerance) and counted


def is_whole(
    world: World, freely: Callable[[RankDriver, int, int], tuple[float, ...]], epoch: int, pushed: int
) -> bool:
    """Whether nothing was lost in a free run of all ranks: of what they sum up, or of what they ask each other."""
    driver = world.driver(
        Topology.static("ring", nx.cycle_graph(NODES), "metropolis"),
        gradient,
        run=7,
        epoch=epoch,
        waits=False,
        pushed=pushed,
    )
    try:
        own = freely(driver, world.rank, NODES)
        all_nodes = driver.gather({world.rank: [*map(float, own)]})
    finally:
        driver.close()
    if freely is summed:
        return abs(sum(mass for mass, _ in all_nodes) - NODES) < 1e-12
    return all(sent == replies == 10 * (rank + 1) for rank, (sent, _, replies) in enumerate(all_nodes))


def main(out: Path) -> None:
    torch.set_num_threads(1)
    this = launched()
    assert this is not None
    world = World.join(this, Transport(name="mpi", timeout_s=60), this.size, digest=7)
    found = []
    for epoch, (name, case, optimizer, precision, cut) in enumerate(variations(), start=1):
        algorithm, dtype, layout = built(name, case, OPTIMIZERS[optimizer]), getattr(torch, precision), LAYOUTS[cut]
        run = run_one(world, case, algorithm, dtype, layout, epoch)
        simulated = simulate_few(case, algorithm, dtype, layout)
        what = f"{name} {dict(case.settings)} {optimizer} {precision} {cut}"
        found.append([what, alike(run, simulated, world.rank, case.tolerance)])
    for epoch, (topology, algorithm) in enumerate(further_variations(), start=len(found) + 1):
        run = on_a_rank(world, algorithm, topology, epoch=epoch)
        found.append([f"{topology.name} {algorithm}", alike(run, in_lockstep(algorithm, topology), world.rank)])
    for epoch, (what, (name, settings)) in enumerate(test_tokens.REAL.items(), start=len(found) + 1):
        walking = test_tokens.method(name, "path-4", **settings)
        run = test_tokens.on_a_rank(world, walking, "path-4", test_tokens.ROUNDS, epoch)
        found.append([what, alike(run, test_tokens.in_lockstep(walking), world.rank)])
    for epoch, (freely, pushed) in enumerate(((summed, 0), (summed, 1 << 14), (answered, 0)), start=len(found) + 1):
        through = "windows" if pushed else "messages"
        found.append([f"free run, {freely.__name__}, {through}", is_whole(world, freely, epoch, pushed)])
    (out / f"rank-{world.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

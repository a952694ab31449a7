"""The common battery as the ranks of a real mpirun: `mpirun -n 4 python -m tests.contract.under_mpi OUT`.

Each rank runs every algorithm, order, optimizer, dtype and layout over MPI links, the directed schedules, and the token
methods too. It compares its state with the lockstep simulator's, and writes what it found to OUT/rank-I.json.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.dsgd import DSGD
from decentral.config import Transport
from decentral.transport.launcher import launched
from decentral.transport.world import World
from tests.contract import test_tokens
from tests.contract.directed import COLUMN, DOUBLY, Addressed, Push, directed, in_lockstep, on_a_rank, plain
from tests.contract.problems import LAYOUTS
from tests.contract.runs import Run, same
from tests.contract.test_algorithms import CASES, OPTIMIZERS, Case, built, few, run_one, simulate_few

NODES = 4


def variations() -> Iterator[tuple[str, Case, str, str, str]]:
    """name, case, optimizer, dtype and layout of each run."""
    for name, cases in CASES.items():
        for case in cases.values():
            if few(case).nodes != NODES:
                continue
            for optimizer in case.among(("momentum", "adamw")):
                for dtype in ("float32", "float64"):
                    for layout in LAYOUTS:
                        yield name, case, optimizer, dtype, layout


def directed_variations() -> Iterator[tuple[str, Algorithm]]:
    """Schedule and algorithm of each run on a directed graph."""
    for on in (*DOUBLY, *COLUMN):
        if directed(on).nodes != NODES:
            continue
        for overlaps in (False, True):
            yield on, Push(**plain(overlaps=overlaps))
            yield on, Addressed(**plain(overlaps=overlaps))
        for order in ("adapt-then-combine", "combine-then-adapt", "adapt-while-communicate") if on in DOUBLY else ():
            yield on, DSGD(**plain(order=order))


def alike(run: Run, simulated: Run, rank: int, tolerance: float | None = None) -> bool:
    """Whether a rank did what the simulator did, and sent as much."""
    counted = run.bytes_sent == {rank: simulated.bytes_sent[rank]}
    return same(run.states[rank], simulated.states[rank], tolerance) and counted


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
    for epoch, (on, algorithm) in enumerate(directed_variations(), start=len(found) + 1):
        run = on_a_rank(world, algorithm, directed(on), epoch=epoch)
        found.append([f"{on} {algorithm}", alike(run, in_lockstep(algorithm, directed(on)), world.rank)])
    for epoch, (what, (name, settings)) in enumerate(test_tokens.REAL.items(), start=len(found) + 1):
        walking = test_tokens.method(name, "path-4", **settings)
        run = test_tokens.on_a_rank(world, walking, "path-4", test_tokens.ROUNDS, epoch)
        found.append([what, alike(run, test_tokens.in_lockstep(walking), world.rank)])
    (out / f"rank-{world.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

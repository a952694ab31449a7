"""Pushes through the windows of a real mpirun: `mpirun -n 3 python -m tests.transport.pushes_under_mpi OUT [BYTES]`.

Each rank writes what it found to OUT/rank-I.json. Frames are long enough for a processor to take a while over them, and
both ends work on them at once. BYTES are those of a window's frame; 0 for no windows, where all must be the same.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import networkx as nx
import torch

from decentral.config import Transport
from decentral.peer import Arrival, Payload, Poll, Push
from decentral.topology.topology import Topology
from decentral.transport.launcher import launched
from decentral.transport.rank import RankDriver
from decentral.transport.world import World
from tests.transport.test_rank import gradient

D, STEPS, PATIENCE_S = 200_000, 60, 60
LIKE: Payload = (torch.zeros(D), torch.zeros((), dtype=torch.int64))
SUMS: Payload = (torch.zeros(D, dtype=torch.float64),)


def poll(driver: RankDriver, like: Payload, wait: bool = False) -> dict[int, Arrival]:
    found: Any = driver.perform(Poll(like, wait))
    return dict(found)


def newest(driver: RankDriver, rank: int, nodes: int) -> dict[str, bool]:
    """Everybody pushes to all, and looks now and then; no frame is half one step's and half another's."""
    others, last = [node for node in range(nodes) if node != rank], dict.fromkeys(range(nodes), -1)
    whole, in_order, ages, held = True, True, True, dict[int, Arrival]()
    began, step = monotonic(), 0
    while (step <= STEPS or min(last[other] for other in others) < STEPS) and monotonic() < began + PATIENCE_S:
        if step <= STEPS:
            full = torch.full((D,), float(step)), torch.tensor(step)
            driver.perform(Push(dict.fromkeys(others, full), LIKE, step))
        step += 1
        for sender, arrival in poll(driver, LIKE).items():
            in_order &= arrival.step > last[sender]
            ages &= arrival.at_s <= driver._now_s()
            last[sender], held[sender] = arrival.step, arrival
        sleep(0.0005 * (step % 7))
        for arrival in held.values():  # each lives until the next of the same neighbor
            whole &= bool(arrival.payload[0].eq(arrival.step).all()) and int(arrival.payload[1]) == arrival.step
    found = {"whole": whole, "in order": in_order, "ages": ages}
    return found | {"the last is found": all(last[other] == STEPS for other in others)}


def sums(driver: RankDriver, rank: int, nodes: int) -> dict[str, bool]:
    """What adds is late and not lost, at ranks that look at different times."""
    others, total = [node for node in range(nodes) if node != rank], torch.zeros(D, dtype=torch.float64)
    wanted = sum((other + 1) * STEPS for other in others)
    ones = torch.full((D,), float(rank + 1), dtype=torch.float64)
    began = monotonic()
    for step in range(STEPS):
        driver.perform(Push(dict.fromkeys(others, (ones,)), SUMS, step, adds=True))
        if step % (3 + 20 * rank) == 0:
            for arrival in poll(driver, SUMS).values():
                total += arrival.payload[0]
    while total[0] < wanted and monotonic() < began + PATIENCE_S:
        for arrival in poll(driver, SUMS, wait=True).values():
            total += arrival.payload[0]
    return {"nothing is lost": bool(total.eq(wanted).all()), "nothing is left": poll(driver, SUMS) == {}}


def longer(driver: RankDriver, rank: int, nodes: int) -> dict[str, bool]:
    """Frames longer than windows are go as messages."""
    other, like = (rank + 1) % nodes, (torch.zeros(4 * D),)
    driver.perform(Push({other: (torch.full((4 * D,), 1.0 + rank),)}, like, 0))
    found: dict[int, Arrival] = {}
    while not found:
        found = poll(driver, like, wait=True)
    (arrival,) = found.values()
    return {"longer ones": bool(arrival.payload[0].eq(1.0 + (rank - 1) % nodes).all())}


def played(world: World, epoch: int, work: Callable[..., dict[str, bool]], pushed: int) -> dict[str, bool]:
    graph = Topology.static("complete", nx.complete_graph(world.size), "metropolis")
    driver = world.driver(graph, gradient, run=7, epoch=epoch, waits=False, pushed=pushed)
    try:
        found = work(driver, world.rank, world.size)
        opened = driver._pushes._open
        used = opened is not None and bool(opened.windows)
        driver.gather({world.rank: [0.0]})
    except BaseException:
        driver._failed = True
        raise
    finally:
        driver.close()
    return found | {"through windows": used == (pushed > 0 and work is not longer)}


def main(out: Path, pushed: int) -> None:
    torch.set_num_threads(1)
    this = launched()
    assert this is not None
    world = World.join(this, Transport(name="mpi", timeout_s=60), this.size, digest=7)
    found: dict[str, bool] = {}
    for epoch, work in enumerate((newest, sums, newest, longer), start=1):
        found |= {f"{work.__name__}: {what}": value for what, value in played(world, epoch, work, pushed).items()}
    (out / f"rank-{world.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2 * 4 * D + 4096)

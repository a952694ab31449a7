"""How much faster pushes are through windows of MPI's than as messages of its, or over shared memory of our own.

`mpirun -n 2 python -m tests.transport.mpi_windows_seconds` (or 4: two pairs at once); minutes, so no test. Even ranks
push to the next odd one, which computes gradients without entering MPI and looks for news after each, or does nothing
but look. The ways take turns. For each, medians of: seconds of the pusher's call; from its begin until the receiver can
find what was pushed (computing) or has found it (looking); processor time of the receiver's process, all threads, for a
gradient, as a multiple of what it takes without any pushes in the same turn.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count, product
from statistics import median
from time import perf_counter, process_time, sleep
from typing import Any, NamedTuple

import networkx as nx
import torch
from torch import Tensor

from decentral.config import Transport
from decentral.peer import Poll, Push
from decentral.topology.topology import Topology
from decentral.transport.launcher import launched
from decentral.transport.world import World
from tests.transport.test_rank import gradient

NAP_S = 1e-4
MPI = {"messages": 0, "windows": 2}
"""Ways over MPI, and bytes of a window as a multiple of what is pushed."""


class Seen(NamedTuple):
    step: int
    at_s: float  # by perf_counter


Find = Callable[[], Seen | None]
"""What has come since the last look, and since when it could be found."""


@dataclass
class Bench:
    world: World
    comm: Any  # of the pair: rank 0 pushes, rank 1 receives
    pushes: int
    gap_s: float = 0.01
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @contextmanager
    def way(self, name: str, payload: Tensor) -> Iterator[tuple[Callable[[int], None], Find]]:
        """How to push and to look; nothing of a way is there while another is measured."""
        if name == "none":
            yield lambda step: None, lambda: None
            return
        transport = self.world.transport.model_copy(update={"name": "mpi" if name in MPI else name})
        world, pushed = replace(self.world, transport=transport), MPI.get(name, 0) * payload.nbytes
        driver = world.driver(pairs(world.size), gradient, run=7, epoch=next(self.numbers), waits=False, pushed=pushed)
        like, other = (payload,), world.rank ^ 1
        driver.perform(Poll(like))
        began_s = perf_counter() - driver._now_s()

        def find() -> Seen | None:
            found: Any = driver.perform(Poll(like))
            return Seen(found[other].step, began_s + found[other].at_s) if other in found else None

        yield lambda step: driver.perform(Push({other: like}, like, step)), find  # type: ignore[func-returns-value]
        self.world.office.comm.Barrier()  # type: ignore[union-attr]
        driver.close()

    def block(self, name: str, payload: Tensor, computes: bool) -> dict[str, list[float]]:
        """One turn of one way; the receiver of a pair has the numbers."""
        with self.way(name, payload) as (push, find):
            self.comm.Barrier()
            if not self.comm.rank:
                self.comm.send(self.pushed(push, payload), dest=1)
                return {}
            seen, unit_s = self.received(find, self.pushes * self.gap_s, computes)
            times = self.comm.recv(source=0)
        return {
            "call": [ended - began for began, ended in times],
            "visible": [one.at_s - times[one.step][0] for one in seen],
            "unit": [unit_s],
        }

    def pushed(self, push: Callable[[int], None], payload: Tensor) -> list[tuple[float, float]]:
        """Begin and end of each push."""
        times = []
        for step in range(self.pushes):
            payload.fill_(step % 256)
            began_s = perf_counter()
            push(step)
            times.append((began_s, perf_counter()))
            sleep(max(self.gap_s - (perf_counter() - began_s), 0.0))
        return times

    def received(self, find: Find, seconds: float, computes: bool) -> tuple[list[Seen], float]:
        """What was found, and processor seconds for a gradient."""
        torch.manual_seed(0)
        x, weights = torch.randn(64, 384), [torch.randn(384, 384, requires_grad=True) for _ in range(3)]
        began_s, cpu_s, seen, units = perf_counter(), process_time(), [], 0
        while perf_counter() < began_s + seconds:
            if computes:
                y = x
                for weight in weights:
                    y = torch.tanh(y @ weight / 20)
                torch.autograd.grad(y.square().mean(), weights)
                units += 1
            else:
                sleep(NAP_S)
            if (found := find()) is not None:
                seen.append(found if computes else Seen(found.step, perf_counter()))
        return seen, (process_time() - cpu_s) / max(units, 1)


def pairs(size: int) -> Topology:
    graph = nx.Graph([(rank, rank + 1) for rank in range(0, size, 2)])
    return Topology.static("pairs", graph, "metropolis")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--pushes", type=int, default=20, help="in a turn")
    parser.add_argument("--bytes", type=int, nargs="*", default=[1000, 100_000, 1_000_000, 40_000_000])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    this = launched()
    assert this is not None
    world = World.join(this, Transport(name="mpi", timeout_s=60), this.size, digest=7)
    assert world.office is not None
    comm = world.office.comm.Split(world.rank // 2, world.rank)
    ways = ("none", *MPI, "shared-memory")
    bench = Bench(world, comm, asked.pushes)
    for nbytes, computes in product(asked.bytes, (True, False)):
        bench.gap_s = 0.06 if nbytes > 10_000_000 else 0.01
        payload = torch.zeros(nbytes, dtype=torch.uint8)
        turns: dict[str, list[dict[str, list[float]]]] = {name: [] for name in ways}
        for _, name in product(range(asked.turns), ways):
            turns[name].append(bench.block(name, payload, computes))
        told(world.rank, nbytes, computes, turns)
        comm.Barrier()


def told(rank: int, nbytes: int, computes: bool, turns: dict[str, list[dict[str, list[float]]]]) -> None:
    if rank != 1:
        return
    free = [turn["unit"][0] for turn in turns["none"]]
    for name in [name for name in turns if name != "none"]:
        call_ms, visible_ms = (
            1000 * median([one for turn in turns[name] for one in turn[what]] or [float("nan")])
            for what in ("call", "visible")
        )
        slower = median(turn["unit"][0] / alone for turn, alone in zip(turns[name], free, strict=True))
        line = f"{nbytes:9} B {'computing' if computes else 'looking':9} {name:13} call {call_ms:7.3f} ms"
        print(f"{line} visible {visible_ms:7.3f} ms" + computes * f" gradient x {slower:.2f}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()

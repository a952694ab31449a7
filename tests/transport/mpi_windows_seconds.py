"""Whether pushes through MPI's one-sided windows are faster than those that decentral makes over MPI links.

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
import numpy as np
import torch
from torch import Tensor

from decentral.config import Transport
from decentral.peer import Now, Poll, Push
from decentral.topology.topology import Topology
from decentral.transport.frames import HEADER_BYTES
from decentral.transport.launcher import launched
from decentral.transport.mpi import mpi
from decentral.transport.world import World
from tests.transport.test_rank import gradient

PAGE_BYTES = 4096
FRESH = 4
"""Set in the word of a window, beside a slot's number, while the receiver has not looked."""
NAP_S = 1e-4


class Seen(NamedTuple):
    step: int
    at_s: float  # by perf_counter


Find = Callable[[], Seen | None]
"""What has come since the last look, and since when it could be found."""


class Window:
    """Pushes into three slots of the receiver's memory: one is written, one is read, one holds the newest.

    Who has written a slot, or wants to read the newest, swaps it atomically for the one in the middle.
    """

    def __init__(self, comm: Any, payload_bytes: int) -> None:
        self._mpi, self._frame_bytes = mpi(), HEADER_BYTES + payload_bytes
        mine = PAGE_BYTES + 3 * self._frame_bytes if comm.rank else 0
        self.win = self._mpi.Win.Allocate(mine, 1, comm=comm)
        memory = np.frombuffer(self.win.tomemory(), dtype=np.uint8) if mine else np.zeros(0, np.uint8)
        memory[:] = 0  # the middle has slot 0
        self._word, self._slots = memory[:8].view(np.int64), memory[PAGE_BYTES:]
        self._own = 2 if comm.rank else 1
        self._swapped = np.zeros(1, np.int64)
        self._header = np.zeros(HEADER_BYTES // 8, np.int64)
        comm.Barrier()
        self.win.Lock_all(self._mpi.MODE_NOCHECK)

    def _swap(self, word: int) -> int:
        self.win.Fetch_and_op(np.array([word]), self._swapped, 1, 0, self._mpi.REPLACE)
        self.win.Flush(1)
        return int(self._swapped[0])

    def push(self, payload: Any, step: int) -> None:
        """Called by rank 0 of the pair."""
        self._header[0] = step
        place = PAGE_BYTES + self._own * self._frame_bytes
        self.win.Put(self._header, 1, [place, self._header.nbytes, self._mpi.BYTE])
        self.win.Put(payload, 1, [place + HEADER_BYTES, payload.nbytes, self._mpi.BYTE])
        self.win.Flush(1)
        self._own = self._swap(self._own | FRESH) & 3

    def find(self) -> Seen | None:
        """Called by rank 1 of the pair."""
        self.win.Sync()
        if not self._word[0] & FRESH:
            return None
        self._own = self._swap(self._own) & 3
        frame = self._slots[self._own * self._frame_bytes :][: self._frame_bytes]
        step = int(frame[:8].view(np.int64)[0])
        assert frame[HEADER_BYTES] == frame[-1] == step % 256, "a torn frame"
        return Seen(step, perf_counter())

    def close(self) -> None:
        self.win.Unlock_all()
        self.win.Free()


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
        elif name == "window":
            window = Window(self.comm, payload.nbytes)
            yield lambda step: window.push(payload.numpy(), step), window.find
            window.close()
        else:
            world = replace(self.world, transport=replace_name(self.world.transport, name))
            driver = world.driver(pairs(world.size), gradient, run=7, epoch=next(self.numbers))
            like, other = (payload,), world.rank ^ 1
            driver.perform(Poll(like))
            now_s = driver.perform(Now())
            began_s = perf_counter() - float(now_s)  # type: ignore[arg-type]

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
        visible = [times[one.step][1] if name == "window" and computes else one.at_s for one in seen]
        begun = [times[one.step][0] for one in seen]
        return {
            "call": [ended - began for began, ended in times],
            "visible": [at_s - began for at_s, began in zip(visible, begun, strict=True)],
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


def replace_name(transport: Transport, name: str) -> Transport:
    return transport.model_copy(update={"name": name})


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
    ways = ("none", "mpi", "window", "shared-memory")
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

"""What is asked of NCCL and of a GPU's streams, by stand-ins that note it. Nothing here runs on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import networkx as nx
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import HashStore

from decentral.peer import Collect, LossAndGradient, Post
from decentral.topology.topology import Topology
from decentral.transport import nccl
from decentral.transport.side import CudaSide
from decentral.transport.world import World
from tests.contract.ranks import on_ranks
from tests.transport.messages import both_ways

GPU = torch.device("cuda:3")


class Backend:
    """As much of ProcessGroupNCCL as a group is made with."""

    Options = SimpleNamespace

    def __init__(self, store: Any, rank: int, size: int, options: Any) -> None:
        self.made = (rank, size, options._timeout)
        self.calls: list[Any] = []

    def _set_sequence_number_for_group(self) -> None:
        self.calls.append("numbered")

    def eager_connect_single_device(self, place: torch.device) -> None:
        self.calls.append(place)


def test_a_group_is_made_outside_the_registry_and_connected_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "ProcessGroupNCCL", Backend, raising=False)
    group = nccl.nccl_group(HashStore(), 1, 2, GPU, 7.0)
    assert group.made == (1, 2, timedelta(seconds=7))
    assert group.calls == ["numbered", GPU]
    assert not dist.is_initialized()


def test_it_is_available_to_gpus_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "is_nccl_available", lambda: True)
    assert nccl.is_available(GPU)
    assert not nccl.is_available(torch.device("cpu"))


@dataclass(eq=False)
class Stream:
    """A stream that notes what it is told; `log` is its rank's."""

    name: str
    log: list[str]

    def wait_stream(self, other: "Stream") -> None:
        self.log.append(f"{self.name} waits for {other.name}")

    def wait_event(self, event: "Happening") -> None:
        self.log.append(f"{self.name} waits for a mark in {event.of}")


@dataclass(eq=False)
class Happening:
    of: str = ""

    def record(self, stream: Stream) -> None:
        self.of = stream.name
        stream.log.append(f"mark in {self.of}")

    def query(self) -> bool:
        return True


class StreamsAlone(CudaSide):
    """A GPU's side with streams of the test's, and memory of the host."""

    place = "cpu"

    def __init__(self, log: list[str]) -> None:
        self._gpu: Any = SimpleNamespace(compute=Stream("computation", log))
        self._stream: Any = Stream("side", log)

    def memory(self, size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.uint8)

    notes = memory


def test_the_side_waits_for_the_computation_and_the_computation_for_a_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    """One exchange: filled and sent behind what was computed before, and collected without a word to the host."""

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        stream.log.append(f"in {stream.name}")
        yield
        stream.log.append(f"out of {stream.name}")

    monkeypatch.setattr(torch.cuda, "Event", Happening)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda gpu: gpu.compute)

    def work(world: World) -> list[str]:
        log: list[str] = []
        side = StreamsAlone(log)
        assert world.engine is not None
        placed = replace(world, engine=world.engine._replace(side=side))
        topology = Topology.static("pair", nx.path_graph(2), "metropolis")
        driver = placed.driver(topology, lambda at: LossAndGradient(at.sum(), at), run=1, epoch=0)
        log.clear()

        async def step() -> Tensor:
            ticket = await Post(both_ways((torch.full((3,), float(world.rank)),), (1 - world.rank,)))
            log.append("gradient")
            (payload,) = (await Collect(ticket)).values()
            assert payload[0].tolist() == 3 * [1.0 - world.rank]
            return torch.zeros(())

        driver.advance({world.rank: step()}, 0)
        driver.settle()
        driver.close()
        return log

    entered = ["side waits for computation", "in side", "out of side"]
    for log in on_ranks(2, work, wire="colored"):
        assert log == [*entered, *entered, "mark in side", "gradient", "computation waits for a mark in side"]

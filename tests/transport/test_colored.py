"""Colored links, over gloo groups that block and over sides that are late: order, one operation for both directions,
checks behind the host, and deadlines.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Event, Lock
from time import monotonic
from typing import Any

import networkx as nx
import pytest
import torch
from torch import Tensor

from decentral.errors import LostNeighborError, MissingEnvironmentError
from decentral.peer import AllReduce, Collect, Exchange, LossAndGradient, Messages, Post
from decentral.topology.topology import Topology
from decentral.transport.colored import ColoredCircle
from decentral.transport.frames import FrameError, Stamp
from decentral.transport.links import BrokenLinkError, Link
from decentral.transport.rank import RankDriver
from decentral.transport.side import Mark, NoSide
from decentral.transport.wiring import Wires
from decentral.transport.world import World
from tests.contract.ranks import on_ranks
from tests.transport.messages import both_ways

pytestmark = pytest.mark.timeout(90)

PATIENCE_S = 60.0
LOSS = torch.zeros(())


def gradient(at: Tensor) -> LossAndGradient:
    return LossAndGradient(at.sum(), at)


class Ripening:
    """A mark that is reached when its side says so."""

    def __init__(self, side: "LateSide") -> None:
        self._side = side

    def query(self) -> bool:
        return self._side.done


@dataclass
class LateSide(NoSide):
    """A side whose marks are reached only when the test lets them; it notes what happened in which order."""

    done: bool = True
    notes_of: list[str] = field(default_factory=list)

    @contextmanager
    def entered(self) -> Iterator[None]:
        self.notes_of.append("enter")
        yield
        self.notes_of.append("leave")

    def mark(self) -> Mark:
        self.notes_of.append("mark")
        return Ripening(self)

    def hold(self, mark: Mark) -> None:
        assert isinstance(mark, Ripening)
        self.notes_of.append("hold")


@dataclass
class Grouping:
    """A two-rank gloo group that, as NCCL's, begins nothing before its operations are ended together."""

    group: Any
    calls: list[str]
    supports_coalescing: bool = True
    _begun: list[Any] = field(default_factory=list)

    def _start_coalescing(self) -> None:
        self.calls.append("start")

    def recv(self, *of: Any) -> None:
        self.calls.append("recv")
        self._begun.append((self.group.recv, of))

    def send(self, *of: Any) -> None:
        self.calls.append("send")
        self._begun.append((self.group.send, of))

    def _end_coalescing(self) -> "Grouping":
        self.calls.append("end")
        self.works = [begin(*of) for begin, of in self._begun]
        self._begun.clear()
        return self

    def wait(self, timeout: Any) -> None:
        for work in self.works:
            work.wait(timeout)


def on(world: World, **of_engine: Any) -> World:
    assert world.engine is not None
    return replace(world, engine=world.engine._replace(**of_engine))


def driver_of(world: World, graph: nx.Graph) -> RankDriver:
    return world.driver(Topology.static("test", graph, "metropolis"), gradient, run=1, epoch=0)


def random_graph(seed: int) -> nx.Graph:
    graph = nx.gnp_random_graph(7, 0.5, seed=seed)
    graph.add_edges_from(nx.utils.pairwise(range(7)))
    return graph


GRAPHS = {
    "ring-3": nx.cycle_graph(3),
    "ring-5": nx.cycle_graph(5),
    "ring-7": nx.cycle_graph(7),
    "complete-4": nx.complete_graph(4),
    "complete-5": nx.complete_graph(5),
    "star-6": nx.star_graph(5),
    "petersen": nx.petersen_graph(),
    **{f"random-{seed}": random_graph(seed) for seed in range(3)},
}


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_no_rank_waits_for_ever_however_its_neighbors_are_ordered(graph: nx.Graph) -> None:
    """Each exchange blocks until both directions of one edge are through, so on an odd ring every order of edges that
    is not the same for all ranks can be a circle of waiting. Neighbors are named in an order of the rank's own.
    """
    nodes, rounds = len(graph), 4

    def work(world: World) -> list[list[int]]:
        driver, heard = driver_of(world, graph), []
        order = random.Random(world.rank)

        async def step(round: int) -> Tensor:
            neighbors = order.sample(sorted(graph[world.rank]), len(graph[world.rank]))
            received = await Exchange(both_ways((torch.tensor([100 * round + world.rank]),), tuple(neighbors)))
            heard.append(sorted(int(payload[0]) for payload in received.values()))
            ticket = await Post(both_ways((torch.tensor([world.rank]),), tuple(reversed(neighbors))))
            heard.append(sorted(int(payload[0]) for payload in (await Collect(ticket)).values()))
            return LOSS

        for round in range(rounds):
            driver.advance({world.rank: step(round)}, round)
        driver.settle()
        driver.close()
        return heard

    for rank, heard in enumerate(on_ranks(nodes, work, wire="colored")):
        around = sorted(graph[rank])
        assert heard == [
            said for round in range(rounds) for said in ([100 * round + other for other in around], around)
        ]


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
def test_no_rank_waits_for_ever_whatever_directions_are_used(graph: nx.Graph) -> None:
    """In each exchange some edges carry both directions, some one, and some none, as all ranks know."""
    nodes, rounds = len(graph), 6

    def arcs(round: int) -> list[tuple[int, int]]:
        chance = random.Random(round)
        return [arc for edge in sorted(graph.edges) for arc in (edge, edge[::-1]) if chance.random() < 0.5]

    def heard_by(rank: int, round: int) -> list[int]:
        return sorted(100 * round + i for i, j in arcs(round) if j == rank)

    def work(world: World) -> list[list[int]]:
        driver, heard, own = driver_of(world, graph), [], world.rank

        async def step(round: int) -> Tensor:
            to, sources = (tuple(arc[1 - end] for arc in arcs(round) if arc[end] == own) for end in (0, 1))
            messages = Messages.alike((torch.tensor([100 * round + own]),), to, sources)
            received = await Exchange(messages)
            heard.append(sorted(int(payload[0]) for payload in received.values()))
            return LOSS

        for round in range(rounds):
            driver.advance({own: step(round)}, round)
        driver.settle()
        driver.close()
        return heard

    found = on_ranks(nodes, work, wire="colored")
    assert found == [[heard_by(rank, round) for round in range(rounds)] for rank in range(nodes)]


def test_an_order_of_each_ranks_own_would_wait_for_ever() -> None:
    """What the order is good for: three ranks that each begin with the next one on the ring, over the same links."""

    def work(world: World) -> str:
        wires = world.wiring(epoch=0).connect([other for other in range(3) if other != world.rank])
        frame = wires.bundles[0].outbox.take(100)
        try:
            for neighbor in ((world.rank + 1) % 3, (world.rank + 2) % 3):
                wires.links[neighbor].start(frame, frame.numel(), overlapped=False)
        except BrokenLinkError as error:
            return str(error)
        finally:
            wires.close()
        return "went through"

    assert "went through" not in on_ranks(3, work, timeout_s=1.0, wire="colored")


def test_links_are_begun_color_by_color() -> None:
    """Edges of one color run at once, so the ring of four takes two turns; ascending edges would take three."""

    def work(world: World) -> list[int]:
        wires = world._linked(Topology.static("test", nx.cycle_graph(4), "metropolis"), epoch=0, largest=0)
        order = [*wires.bundles[0].links]
        wires.close()
        return order

    first, *_ = orders = on_ranks(4, work, wire="colored")
    assert first in ([1, 3], [3, 1])
    assert all(orders[orders[rank][0]][0] == rank for rank in range(4)), "each rank's first is that one's first too"


def test_both_directions_are_one_operation_of_the_group() -> None:
    calls: dict[int, list[str]] = {0: [], 1: []}

    def work(world: World) -> int:
        assert world.engine is not None
        make = world.engine.make
        grouped = on(world, make=lambda *of: Grouping(make(*of), calls[world.rank]))
        wires = grouped.wiring(epoch=0).connect([1 - world.rank])
        link = wires.links[1 - world.rank]
        outgoing = wires.bundles[0].outbox.take(100).fill_(world.rank)
        incoming = link.start(outgoing, 100, overlapped=False)(PATIENCE_S)
        link.start(None if world.rank else outgoing, 100 * world.rank, overlapped=False)(PATIENCE_S)
        wires.close()
        assert incoming is not None
        return int(incoming[0])

    assert on_ranks(2, work, wire="colored") == [1, 0]
    twice = 2 * ["start", "recv", "send", "end"]
    assert calls == {
        0: [*twice, "start", "send", "end"],
        1: [*twice, "start", "recv", "end"],
    }, "the handshake, an exchange, and one in one direction"


def test_the_computation_waits_for_a_mark_and_the_host_for_nothing() -> None:
    def work(world: World) -> list[str]:
        side = LateSide()
        driver = driver_of(on(world, side=side), nx.path_graph(2))
        side.done = False
        side.notes_of.clear()

        async def step() -> Tensor:
            ticket = await Post(both_ways((torch.zeros(3),), (1 - world.rank,)))
            side.notes_of.append("computation")
            await Collect(ticket)
            return LOSS

        driver.advance({world.rank: step()}, 0)
        seen = list(side.notes_of)
        side.done = True
        driver.settle()
        driver.close()
        return seen

    filled, exchanged = ["enter", "leave"], ["enter", "leave", "mark"]
    assert on_ranks(2, work, wire="colored") == 2 * [[*filled, *exchanged, "computation", "hold"]]


def stamp(sender: int, round: int) -> Stamp:
    return Stamp(run=1, epoch=0, sender=sender, round=round, sequence=0, signature=5, payload_bytes=8)


def exchanged(wires: Wires, link: Link, rank: int, claimed: int, expected: int) -> None:
    """One frame whose header claims a round, checked against another."""
    outbox = wires.bundles[0].outbox
    frame = outbox.take(64 + 8)
    outbox.fill(frame, stamp(rank, claimed), (torch.zeros(1, dtype=torch.float64),))
    incoming = link.start(frame, frame.numel(), overlapped=True)(PATIENCE_S)
    outbox.give_back(frame)
    link.check(incoming, stamp(1 - rank, expected))
    link.release(incoming)


def test_a_header_is_checked_once_it_is_there_and_names_its_own_round() -> None:
    def work(world: World) -> tuple[str, bool]:
        side = LateSide()
        wires = on(world, side=side).wiring(epoch=0).connect([1 - world.rank])
        link = wires.links[1 - world.rank]
        side.done = False
        exchanged(wires, link, world.rank, claimed=3, expected=4)  # nobody can know yet
        side.done = True
        with pytest.raises(FrameError) as caught:
            exchanged(wires, link, world.rank, claimed=5, expected=5)
        link.settle(PATIENCE_S)  # the later frame was as it should be
        wires.close()
        return str(caught.value), True

    assert on_ranks(2, work, wire="colored") == 2 * [("round 3, expected 4 (in the frame of round 4)", True)]


def test_the_host_runs_two_exchanges_ahead_and_no_further() -> None:
    def work(world: World) -> float:
        side = LateSide()
        wires = on(world, side=side).wiring(epoch=0).connect([1 - world.rank])
        link = wires.links[1 - world.rank]
        side.done = False
        for round in range(3):
            exchanged(wires, link, world.rank, claimed=round, expected=round)
        began = monotonic()
        with pytest.raises(BrokenLinkError, match="no answer"):
            link.start(wires.bundles[0].outbox.take(72), 72, overlapped=True)
        wires.close()
        return monotonic() - began

    assert all(waited_s >= 0.5 for waited_s in on_ranks(2, work, timeout_s=0.5, wire="colored"))


def test_a_host_that_only_sends_runs_two_exchanges_ahead_and_no_further() -> None:
    def work(world: World) -> None:
        side = LateSide()
        wires = on(world, side=side).wiring(epoch=0).connect([1 - world.rank])
        link = wires.links[1 - world.rank]
        side.done = False
        for _ in range(3):
            link.start(wires.bundles[0].outbox.take(72), 72, overlapped=True)  # over gloo, both must be there
            link.start(wires.bundles[0].outbox.take(72) if world.rank else None, 0 if world.rank else 72, True)(0.1)
        if world.rank:
            with pytest.raises(BrokenLinkError, match="no answer"):
                link.start(wires.bundles[0].outbox.take(72), 0, overlapped=True)
            with pytest.raises(BrokenLinkError, match="no answer"):
                link.settle(0.1)
        wires.close()

    on_ranks(2, work, timeout_s=0.5, wire="colored")


@pytest.mark.parametrize("ask", ["exchange", "all-reduce"])
def test_what_never_arrives_is_told_by_the_deadline_of_the_evaluation(ask: str) -> None:
    def work(world: World) -> str:
        side = LateSide()
        driver = driver_of(on(world, side=side), nx.path_graph(2))
        side.done = False

        async def step() -> Tensor:
            await (
                Exchange(both_ways((torch.zeros(3),), (1 - world.rank,)))
                if ask == "exchange"
                else AllReduce(torch.zeros(3))
            )
            return LOSS

        driver.advance({world.rank: step()}, 0)
        with pytest.raises(LostNeighborError) as caught:
            driver.settle()
        driver.close()
        return str(caught.value)

    for rank, said in enumerate(on_ranks(2, work, timeout_s=0.5, wire="colored")):
        whom = f"node {1 - rank}" if ask == "exchange" else "all nodes"
        assert said.startswith(f"node {rank} waited 0.5 s for {whom} in round 0")
        assert "gloo, colored)" in said


def test_a_neighbor_that_is_gone_is_named() -> None:
    closed = Event()

    def work(world: World) -> str:
        driver = driver_of(world, nx.path_graph(2))

        async def step() -> Tensor:
            await Exchange(both_ways((torch.zeros(3),), (1 - world.rank,)))
            return LOSS

        driver.advance({world.rank: step()}, 0)
        if world.rank == 1:
            driver.close()
            closed.set()
            return ""
        closed.wait(PATIENCE_S)
        with pytest.raises(LostNeighborError) as caught:
            driver.advance({0: step()}, 1)
        driver.close()
        return str(caught.value)

    said, _ = on_ranks(2, work, wire="colored")
    assert said.startswith("node 0 lost node 1 in round 1 after ")
    assert "connection closed (Post, 0.1 kB, gloo, colored)" in said


def test_ranks_that_share_a_gpu_are_refused_with_both_names() -> None:
    def work(world: World) -> str:
        placed = on(world, identity="GPU-7" if world.rank in (1, 2) else f"GPU-{world.rank}")
        with pytest.raises((MissingEnvironmentError, LostNeighborError)) as caught:
            placed.wiring(epoch=0).connect([other for other in range(3) if other != world.rank])
        return str(caught.value)

    found = on_ranks(3, work, timeout_s=2.0, wire="colored")
    for rank, other in ((1, 2), (2, 1)):
        assert found[rank] == (
            f"transport: nccl, but nodes {rank} and {other} share the GPU GPU-7, which NCCL refuses; use auto: shared "
            "memory through page-locked host buffers"
        )


def test_auto_takes_colored_links_between_gpus_and_the_host_within_one() -> None:
    """Two ranks on each of two GPUs: the ring's edges alternate, and so do the memories that frames lie in."""
    graph = nx.cycle_graph(4)

    def work(world: World) -> tuple[dict[int, str], list[float]]:
        automatic = replace(world, transport=world.transport.model_copy(update={"name": "auto"}))
        driver = driver_of(on(automatic, identity=f"GPU-{world.rank // 2}"), graph)
        heard = []

        async def step(round: int) -> Tensor:
            received = await Exchange(
                both_ways((torch.tensor([10.0 * round + world.rank]),), tuple(sorted(graph[world.rank])))
            )
            heard.extend(payload[0].item() for payload in received.values())
            return LOSS

        for round in range(3):
            driver.advance({world.rank: step(round)}, round)
        names = {neighbor: link.name for neighbor, link in driver._exchanges.links.items()}
        driver.close()
        return names, heard

    for rank, (names, heard) in enumerate(on_ranks(4, work, wire="colored")):
        assert names == {
            other: "shared memory" if other // 2 == rank // 2 else "gloo, colored" for other in graph[rank]
        }
        assert heard == [10.0 * round + other for round in range(3) for other in sorted(graph[rank])]


def test_sums_of_some_ranks_run_on_the_side_and_others_in_the_host() -> None:
    """Ranks 0 and 1 compute apart, 2 and 3 in the same place: their sum takes the host's engine."""
    lock, made = Lock(), []

    def work(world: World) -> float:
        placed = on(world, identity=f"GPU-{min(world.rank, 2)}")
        automatic = replace(placed, transport=placed.transport.model_copy(update={"name": "auto"}))
        driver = automatic.driver(None, gradient, run=1, epoch=0)
        together = (0, 1) if world.rank < 2 else (2, 3)
        means = []

        async def step() -> Tensor:
            for _ in range(2):
                means.append((await AllReduce(torch.tensor([float(world.rank)]), together)).item())
            return LOSS

        driver.advance({world.rank: step()}, 0)
        driver.settle()
        with lock:
            made.append((world.rank, isinstance(driver._circles[together], ColoredCircle)))
        driver.close()
        assert means[0] == means[1]
        return means[0]

    assert on_ranks(4, work, wire="colored") == [0.5, 0.5, 2.5, 2.5]
    assert sorted(made) == [(0, True), (1, True), (2, False), (3, False)]

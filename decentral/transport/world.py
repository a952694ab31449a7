"""The ranks of a run on real processes: where they meet, and the links they make."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from torch.distributed import HashStore, PrefixStore, Store, rendezvous  # type: ignore[attr-defined]

from decentral.config import Transport
from decentral.errors import ConfigError, DecentralError, LostNeighborError, MissingEnvironmentError
from decentral.timeline import Timeline
from decentral.topology.matchings import matchings
from decentral.topology.topology import Topology
from decentral.transport import nccl
from decentral.transport.colored import ColoredCircle, Engine
from decentral.transport.driver import GradientAt
from decentral.transport.everyone import Circle, Everyone, GlooEveryone
from decentral.transport.gloo import INTERFACE_VARIABLE, gloo_device, gloo_group, loopback_interface
from decentral.transport.gpu import CPU
from decentral.transport.launcher import Launched
from decentral.transport.links import Link
from decentral.transport.mpi import MPIEveryone, MPILink
from decentral.transport.office import Office, own_host
from decentral.transport.rank import RankDriver
from decentral.transport.survivors import Dead, SurvivingEveryone, say_linked
from decentral.transport.traced import traced_wires
from decentral.transport.wiring import MakeLink, Wires, Wiring


@dataclass(frozen=True)
class World:
    """All ranks of this job, one node each.

    The store carries addresses and small texts only; no tensor and no pickle goes through it.
    """

    rank: int
    size: int
    store: Store
    device: Any
    transport: Transport
    one_machine: bool = True
    office: Office | None = None  # of MPI, in ranks that it has started
    engine: Engine | None = None  # of colored links, where this node computes on a GPU

    @classmethod
    def join(
        cls, launched: Launched, transport: Transport, nodes: int, digest: int, place: torch.device = CPU
    ) -> "World":
        """Meet the other ranks.

        Args:
            digest: of the experiment; every rank must have the same.
            place: where this rank computes.

        Raises:
            ConfigError: another number of ranks than nodes, or another experiment than rank 0 has.
            MissingEnvironmentError: the meeting point cannot be reached, no such interface, or no NCCL where it is
                asked for.
        """
        engine = _engine(transport, place)
        if launched.size != nodes:
            raise ConfigError(
                f"{launched.launcher} started {launched.size} ranks for nodes: {nodes}; one rank is one node, "
                f"so start {nodes} ranks or set -s nodes={launched.size}"
            )
        office = _office(launched, transport)
        patience = timedelta(seconds=transport.connect_timeout_s)
        try:
            if office is not None and launched.master is None:
                store = office.meet("127.0.0.1" if launched.one_machine else own_host(transport.interface), patience)
            else:
                store, _, _ = next(rendezvous(launched.meeting, launched.rank, launched.size, timeout=patience))
        except (RuntimeError, ValueError) as error:
            raise MissingEnvironmentError(
                f"rank {launched.rank} cannot meet the others at {launched.master}:{launched.port} "
                f"({str(error).splitlines()[0][:120]}); check MASTER_ADDR, MASTER_PORT and that rank 0 runs"
            ) from error
        device = gloo_device(transport.interface, launched.one_machine)
        world = cls(launched.rank, nodes, store, device, transport, launched.one_machine, office, engine)
        world._check_same_experiment(digest)
        return world

    @classmethod
    def alone(cls, transport: Transport) -> "World":
        """The world of a process that no launcher started: one rank."""
        return cls(0, 1, HashStore(), gloo_device(transport.interface, one_machine=True), transport)

    def _check_same_experiment(self, digest: int) -> None:
        first = self.agree("digest", str(digest))
        if first != str(digest):
            raise ConfigError(
                f"node {self.rank} reads another experiment than node 0; give every rank the same file and -s options"
            )

    def agree(self, key: str, value: str) -> str:
        """Rank 0's value, known to all.

        Raises:
            LostNeighborError: rank 0 did not say it in time.
        """
        if self.rank == 0:
            self.store.set(key, value)
            return value
        try:
            return str(self.store.get(key).decode())
        except RuntimeError as error:
            raise LostNeighborError(f"node {self.rank} waited for node 0 to say {key!r} in vain") from error

    def first_of(self, key: str, value: str) -> str:
        """The first text that is not empty, in order of ranks, known to all once each has said its own.

        Raises:
            LostNeighborError: a rank did not say it in time.
        """
        try:
            self.store.set(f"{key}/{self.rank}", value)
            said = (self.store.get(f"{key}/{rank}").decode() for rank in range(self.size))
            verdict = next(filter(None, said), "") if self.rank == 0 else ""
        except RuntimeError as error:
            raise LostNeighborError(f"node {self.rank} waited for the others to say {key!r} in vain") from error
        return self.agree(f"{key}/verdict", verdict)

    def prefixed(self, epoch: int, name: str) -> Store:
        """A part of the store that belongs to one run, and to one purpose in it."""
        return PrefixStore(f"run/{epoch}/{name}", self.store)

    def driver(
        self,
        topology: Topology | None,
        gradient: GradientAt,
        run: int,
        epoch: int,
        largest: int = 0,
        timeline: Timeline | None = None,
        waits: bool = True,
        pushed: int = 0,
    ) -> RankDriver:
        """This node's driver for one run: links to its neighbors, under a prefix that no other run uses.

        Args:
            topology: the graph; None for a centralized method, which has no links.
            run: 64-bit digest of the experiment.
            epoch: number of the run in this job.
            largest: bytes of the run's largest message, where that is known: receives are then posted a round ahead.
            timeline: where what the links do is noted, if anywhere.
            waits: whether nodes wait for each other; NCCL's links are for those that do.
            pushed: bytes of the run's largest pushed message, at least, where that is known.
        """
        linking = self if waits else replace(self, engine=None)
        wires = linking._linked(topology, epoch, largest, pushed) if topology else Wires()
        if timeline is not None:
            wires = traced_wires(wires, timeline)
        everyone = self.everyone(epoch)
        circle = partial(self.circle, epoch, everyone)
        asked = self.transport
        if asked.survive:
            say_linked(self.store, self.rank)
        return RankDriver(
            self.rank, self.size, wires, gradient, everyone, run, epoch, asked.timeout_s, circle, asked.survive
        )

    def _linked(self, topology: Topology, epoch: int, largest: int, pushed: int = 0) -> Wires:
        wiring, neighbors = self.wiring(epoch, largest, pushed), topology.neighbors(self.rank)
        if self.engine is None:  # no link depends on an order of edges, and a large graph takes long to color
            return wiring.connect(neighbors)
        colored = enumerate(matchings(topology.graph))
        colors = {sum(edge) - self.rank: color for color, edges in colored for edge in edges if self.rank in edge}
        return wiring.connect(neighbors, colors)

    def circle(self, epoch: int, everyone: Everyone, among: tuple[int, ...]) -> Circle:
        """The ranks of some nodes together, for their sums in one run."""
        store = self.prefixed(epoch, f"circle/{'-'.join(map(str, among))}")
        patience_s, own = self.transport.connect_timeout_s, among.index(self.rank)
        if self.engine is not None and self._differ(epoch, self.engine, among):
            make = self.engine.make
            return ColoredCircle(self.engine, lambda: make(store, own, len(among), patience_s))
        if len(among) == self.size:
            return everyone
        if self.office is not None and self.transport.name == "mpi":
            return MPIEveryone(self.office, among)
        return GlooEveryone(lambda: gloo_group(store, own, len(among), self.device, patience_s), len(among))

    def ddp_backend(self, epoch: int) -> str:
        """What DDP runs on: NCCL, as its users would have it, where every rank has a GPU of its own; else gloo."""
        whole = tuple(range(self.size))
        if self.engine is not None and self.engine.name == nccl.NAME and self._differ(epoch, self.engine, whole):
            return "nccl"
        return "gloo"

    def _differ(self, epoch: int, engine: Engine, among: tuple[int, ...]) -> bool:
        """Whether no two of these ranks compute in the same memory."""
        store = self.prefixed(epoch, "memory")
        store.set(str(self.rank), engine.identity or f"node {self.rank}")
        return len({store.get(str(rank)) for rank in among}) == len(among)

    def everyone(self, epoch: int) -> Everyone:
        """All ranks together in one run."""
        if self.office is not None and self.transport.name == "mpi":
            return MPIEveryone(self.office)
        patience_s = self.transport.connect_timeout_s
        store = self.prefixed(epoch, "all")
        if self.transport.survive:
            return self._survivors(epoch, store)
        return GlooEveryone(lambda: gloo_group(store, self.rank, self.size, self.device, patience_s), self.size)

    def _survivors(self, epoch: int, store: Store) -> SurvivingEveryone:
        def make(name: str, members: tuple[int, ...], patience_s: float) -> Any:
            group = PrefixStore(f"group/{name}", store)
            return gloo_group(group, members.index(self.rank), len(members), self.device, patience_s)

        def failed() -> bool:
            return self.first_fault(epoch) is not None

        return SurvivingEveryone(self.rank, self.size, store, Dead(self.store), make, failed)

    def wiring(self, epoch: int, largest: int = 0, pushed: int = 0) -> Wiring:
        """How this node is linked to others in one run."""
        asked = self.transport
        store = self.prefixed(epoch, "wires")
        by_mpi = None if self.office is None else self._by_mpi(self.office, epoch, largest, pushed)
        return Wiring(
            self.rank,
            store,
            self.device,
            asked.connect_timeout_s,
            asked.name,
            by_mpi,
            largest,
            self.engine,
            asked.timeout_s,
        )

    def _by_mpi(self, office: Office, epoch: int, largest: int, pushed: int) -> MakeLink:
        near = office.near if pushed and self.transport.name == "mpi" else None  # else shared memory links this host

        def link(neighbor: int) -> Link:
            window = near.window(neighbor, pushed) if near else None
            return MPILink(office, neighbor, epoch, largest, window)

        return link

    @contextmanager
    def gloo_interface(self) -> Iterator[None]:
        """Within it, torch's own gloo groups listen where ours do."""
        before = os.environ.get(INTERFACE_VARIABLE)
        if interface := self.transport.interface or before or (loopback_interface() if self.one_machine else None):
            os.environ[INTERFACE_VARIABLE] = interface
        try:
            yield
        finally:
            os.environ.pop(INTERFACE_VARIABLE, None)
            if before is not None:
                os.environ[INTERFACE_VARIABLE] = before

    def report(self, epoch: int, error: DecentralError) -> None:
        """Leave word of why this node ends the run; the first one's word stays."""
        with suppress(RuntimeError):  # the store may have died with the node that kept it; closed links still tell
            self.prefixed(epoch, "fault").compare_set("first", "", f"{error.exit_code} {error}")

    def first_fault(self, epoch: int) -> tuple[int, str] | None:
        """Exit code and text of the first fault that a node reported in this run."""
        store = self.prefixed(epoch, "fault")
        with suppress(RuntimeError):
            if store.check(["first"]):
                code, _, text = store.get("first").decode().partition(" ")
                return int(code), text
        return None


def _engine(transport: Transport, place: torch.device) -> Engine | None:
    """NCCL, where the ranks compute on GPUs and may use it."""
    check_place(transport, place)
    if transport.name in ("auto", "nccl") and nccl.is_available(place):
        return nccl.engine(place, transport.timeout_s)
    return None


def check_place(transport: Transport, place: torch.device) -> None:
    """Find out whether a transport is any good where the ranks compute.

    Raises:
        ConfigError: it is asked for on the CPU.
        MissingEnvironmentError: it is asked for, and this torch has none.
    """
    if transport.name == "nccl" and place.type == "cpu":
        raise ConfigError(
            "transport: nccl moves GPU memory, but this rank computes on the CPU; set device: cuda, or use auto",
            (*transport.path, "name"),
        )
    if transport.name == "nccl" and not nccl.is_available(place):
        raise MissingEnvironmentError(f"transport: nccl, but torch {torch.__version__} has no NCCL; use auto")


def _office(launched: Launched, transport: Transport) -> Office | None:
    """MPI, where the launcher started it and the run needs it or may use it.

    Raises:
        MissingEnvironmentError: it is needed and cannot be had.
    """
    needed = transport.name == "mpi" or (launched.mpi and launched.master is None)
    if not needed and not (launched.mpi and transport.name == "auto"):
        return None
    try:
        if not launched.mpi:
            raise MissingEnvironmentError(
                f"transport: mpi, but {launched.launcher} started this rank; start it with mpirun, or use auto"
            )
        return Office(launched.rank, launched.size)
    except MissingEnvironmentError:
        if needed:
            raise
        return None

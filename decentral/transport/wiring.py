"""From a node's neighbors to its links: which wire each edge takes, and how the two ends find each other."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from threading import local
from time import monotonic
from typing import Any, NamedTuple

from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from decentral.errors import DecentralError, LostNeighborError, MissingEnvironmentError
from decentral.transport import shared
from decentral.transport.colored import ColoredLink, Engine, SideOutbox
from decentral.transport.gloo import GlooLink, told
from decentral.transport.links import BrokenLinkError, Link, Outbox
from decentral.transport.shared import Meeting, SharedLink, SharedOutbox

_CONNECTING_AT_ONCE = 8

MakeLink = Callable[[int], Link]
"""Makes the link to one neighbor, both ends at about the same time."""


class Bundle(NamedTuple):
    """Links of one node, in the order in which an exchange begins them, and the memory that they send from."""

    links: Mapping[int, Link]
    outbox: Outbox


@dataclass(frozen=True)
class Wires:
    """All links of one node."""

    bundles: tuple[Bundle, ...] = ()

    @property
    def links(self) -> dict[int, Link]:
        """By neighbor."""
        return {neighbor: link for bundle in self.bundles for neighbor, link in bundle.links.items()}

    def close(self) -> None:
        """Give back connections and memory."""
        for bundle in self.bundles:
            for link in bundle.links.values():
                link.close()
            bundle.outbox.close()


@dataclass(frozen=True)
class Wiring:
    """How one node of a run is linked.

    Args:
        node: this one.
        store: of this run alone, the same for all nodes.
        device: that gloo listens on.
        timeout_s: for all links together.
        transport: `auto`, `gloo`, `shared-memory`, `mpi` or `nccl`.
        by_mpi: makes a link by MPI; None in a process that has none.
        largest: bytes of the largest frame of the run; 0 if not known.
        engine: what colored links run on; None where there are none.
        transfer_s: seconds that one exchange over a colored link may take.
    """

    node: int
    store: Store
    device: Any
    timeout_s: float
    transport: str = "auto"
    by_mpi: MakeLink | None = None
    largest: int = 0
    engine: Engine | None = None
    transfer_s: float = 30.0

    def connect(self, neighbors: Iterable[int], colors: Mapping[int, int] | None = None) -> Wires:
        """A link to each neighbor.

        Args:
            colors: the color of the edge to each, in an edge coloring of the whole graph. Without it edges are used in
                ascending order, which is as safe, and slower.

        Raises:
            LostNeighborError: a neighbor did not answer in time.
            MissingEnvironmentError: the transport cannot reach a neighbor.
        """

        def place(neighbor: int) -> tuple[int, list[int]]:
            return (colors or {}).get(neighbor, 0), sorted((self.node, neighbor))

        # Every node takes its edges in the same global order, so no two can wait for each other.
        ordered = sorted(neighbors, key=place)
        deadline = monotonic() + self.timeout_s
        colored = self._colored(ordered, deadline)
        rest = [neighbor for neighbor in ordered if colored is None or neighbor not in colored.links]
        bundles = [colored] if colored else []
        return Wires((*bundles, self._over_the_host(rest, deadline)) if rest else tuple(bundles))

    def _colored(self, ordered: Sequence[int], deadline: float) -> Bundle | None:
        """Links of the engine, to whoever computes elsewhere than here, made one color after the other."""
        if self.engine is None or self.transport not in ("auto", "nccl"):
            return None
        own = self.engine.identity or f"node {self.node}"
        self.store.set(f"memory/{self.node}", own)
        same = [other for other in ordered if self._read(f"memory/{other}", other, deadline) == own]
        if same and self.transport == "nccl":
            raise MissingEnvironmentError(
                f"transport: nccl, but nodes {self.node} and {same[0]} share the GPU {own}, which NCCL refuses; use "
                "auto: shared memory through page-locked host buffers"
            )
        links: dict[int, Link] = {}
        try:
            for neighbor in ordered:
                if neighbor not in same:
                    links[neighbor] = self._colored_link(neighbor, self.engine, deadline)
        except DecentralError:
            for link in links.values():
                link.close()
            raise
        return Bundle(links, SideOutbox(self.engine.side)) if links else None

    def _colored_link(self, neighbor: int, engine: Engine, deadline: float) -> ColoredLink:
        low, high = sorted((self.node, neighbor))
        edge = PrefixStore(f"colored/{low}-{high}", self.store)
        try:
            return ColoredLink(engine, edge, int(self.node == high), max(deadline - monotonic(), 1e-3), self.transfer_s)
        except (RuntimeError, BrokenLinkError) as error:
            raise self._unreached(neighbor, error) from error

    def _over_the_host(self, ordered: Sequence[int], deadline: float) -> Bundle:
        if self.transport not in ("auto", "shared-memory"):
            return Bundle(self._between_hosts(ordered, deadline), Outbox())
        with closing(Meeting()) as meeting:
            near = self._on_this_host(ordered, meeting, deadline)
            far = [neighbor for neighbor in ordered if neighbor not in near]
            if far and self.transport == "shared-memory":
                raise MissingEnvironmentError(
                    f"transport: shared-memory, but nodes {self.node} and {far[0]} share no memory: they are on "
                    "different hosts, in different network namespaces, of different users, or not on Linux; use auto"
                )
            outbox = SharedOutbox(f"decentral-node-{self.node}") if near else Outbox()
            links = self._within_host(near, meeting, outbox, deadline) if isinstance(outbox, SharedOutbox) else {}
            return Bundle({**links, **self._between_hosts(far, deadline)}, outbox)

    def _on_this_host(self, neighbors: Iterable[int], meeting: Meeting, deadline: float) -> dict[int, str]:
        """The neighbors that share memory with this node, and where each waits."""
        here = shared.locality() or f"node {self.node}"
        self.store.set(f"host/{self.node}", f"{here} {meeting.address}")
        found = {}
        for neighbor in neighbors:
            there, _, address = self._read(f"host/{neighbor}", neighbor, deadline).rpartition(" ")
            if there == here:
                found[neighbor] = address
        return found

    def _read(self, key: str, neighbor: int, deadline: float) -> str:
        try:
            self.store.wait([key], timedelta(seconds=max(deadline - monotonic(), 0.001)))
            return str(self.store.get(key).decode())
        except RuntimeError as error:
            raise self._unreached(neighbor, error) from error

    def _within_host(
        self, near: Mapping[int, str], meeting: Meeting, outbox: SharedOutbox, deadline: float
    ) -> dict[int, Link]:
        """The higher-numbered end of an edge calls, the other answers."""
        connections = {}
        try:
            for neighbor, address in near.items():
                if neighbor < self.node:
                    connections[neighbor] = Meeting.call(address, self.node)
            while missing := sorted(near.keys() - connections.keys()):
                neighbor = missing[0]
                caller, connection = meeting.answer(deadline - monotonic())
                connections[caller] = connection
        except OSError as error:
            raise self._unreached(neighbor, error) from error
        return {
            neighbor: SharedLink(connection, outbox, reader)
            for reader, (neighbor, connection) in enumerate(connections.items())
        }

    def _between_hosts(self, neighbors: Iterable[int], deadline: float) -> dict[int, Link]:
        if self.transport in ("auto", "mpi") and self.by_mpi is not None:
            return {neighbor: self.by_mpi(neighbor) for neighbor in neighbors}
        if self.transport == "mpi":
            raise MissingEnvironmentError("transport: mpi needs ranks started by mpirun; start them so, or use auto")
        here = local()

        def link(neighbor: int) -> Link:
            low, high = sorted((self.node, neighbor))
            try:
                # Each thread has its own client: a wait in a TCPStore holds up whoever else uses the same one.
                here.store = getattr(here, "store", None) or self.store.clone()  # type: ignore[attr-defined]
                edge = PrefixStore(f"edge/{low}-{high}", here.store)
                patience_s = max(deadline - monotonic(), 0.001)
                return GlooLink(edge, int(self.node == high), self.device, patience_s, self.largest)
            except RuntimeError as error:
                raise self._unreached(neighbor, error) from error

        with ThreadPoolExecutor(_CONNECTING_AT_ONCE) as pool:
            return dict(zip(neighbors, pool.map(link, neighbors), strict=True))

    def _unreached(self, neighbor: int, error: Exception) -> LostNeighborError:
        return LostNeighborError(
            f"node {self.node} could not connect to node {neighbor} within {self.timeout_s:g} s ({told(error)}); "
            "check that its process started, or raise transport.connect_timeout_s"
        )

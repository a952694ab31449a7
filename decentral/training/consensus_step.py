"""The consensus step that a method leaves to be found: searched for once in a job, by rank 0, and told to all."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict

from decentral.algorithms.algorithm import Algorithm
from decentral.compression import Space, section_of
from decentral.compression.consensus_step import Search, search
from decentral.errors import ConfigError
from decentral.methods import compression_words
from decentral.topology.topology import Topology
from decentral.transport.world import World

AUTO = "auto"
"""What a method's `consensus_step` is until it is found."""
_TURNS = 16
"""Turns of a schedule by which it is told from others."""

A = TypeVar("A", bound=Algorithm | None)


class Found(BaseModel):
    """A consensus step, and what came of all that were tried."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    consensus_step: float
    why: str
    compression: dict[str, Any]
    parameters: int
    nodes: int
    scale: float
    tried: dict[str, str]

    @classmethod
    def by(cls, made: Search, section: Any, graph: Topology, space: Space) -> "Found":
        words = " ".join(compression_words(section)) or section.name
        return cls(
            consensus_step=made.gamma,
            why=f"consensus step {made.gamma:.3g} for {words} on {graph.name} of {graph.nodes}: {made}",
            compression=section.model_dump(mode="json"),
            parameters=space.size,
            nodes=graph.nodes,
            scale=made.scale,
            tried={f"{trial.gamma:.5f}": trial.outcome for trial in made.trials},
        )


class ConsensusSteps:
    """The consensus steps of a job's methods.

    Args:
        world: the ranks of the job; None where this process decides for all.
        known: what was found before, by `identity`.
        tell: called with one line for each that a method takes.
        keep: called with all that are known where there is a new one, by the process that searched.
    """

    def __init__(
        self,
        world: World | None = None,
        known: Mapping[str, Found] | None = None,
        tell: Callable[[str], None] | None = None,
        keep: Callable[[Mapping[str, Found]], None] | None = None,
    ) -> None:
        self._world, self._tell, self._keep = world, tell, keep
        self.known, self._told = dict(known or {}), set[str]()
        self._agreed: dict[str, Found] = {}

    def tuned(self, algorithm: A, graph: Topology | None, space: Space) -> A:
        """A method with its consensus step, where it leaves that to be found; any other as it is.

        Args:
            algorithm: it has `consensus_step` and `compression`, if there is something to find.
            graph: of the nodes.
            space: of the model's vectors.

        Raises:
            ConfigError: no consensus step works.
        """
        if graph is None or getattr(algorithm, "consensus_step", None) != AUTO:
            return algorithm
        section = section_of(cast(Any, algorithm).compression)
        found = self._of(graph, section, space)
        if self._tell is not None and found.why not in self._told:
            self._told.add(found.why)
            self._tell(found.why)
        return cast(A, replace(cast(Any, algorithm), consensus_step=found.consensus_step))

    def _of(self, graph: Topology, section: Any, space: Space) -> Found:
        key = identity(graph, section, space)
        if self._world is None or self._world.size == 1:
            return self._here(key, graph, section, space)
        if key not in self._agreed:
            self._agreed[key] = self._by_rank_0(self._world, key, graph, section, space)
        return self._agreed[key]

    def _here(self, key: str, graph: Topology, section: Any, space: Space) -> Found:
        if key not in self.known:
            self.known[key] = Found.by(search(graph, section, space), section, graph, space)
            if self._keep is not None:
                self._keep(self.known)
        return self.known[key]

    def _by_rank_0(self, world: World, key: str, graph: Topology, section: Any, space: Space) -> Found:
        said = ""
        if world.rank == 0:
            try:
                said = self._here(key, graph, section, space).model_dump_json()
            except ConfigError as error:
                world.agree(f"consensus step/{key}", json.dumps(str(error)))
                raise
        said = world.agree(f"consensus step/{key}", said)
        if said.startswith('"'):
            fault = ConfigError(json.loads(said))
            fault.echo = True
            raise fault
        return Found.model_validate_json(said)


def identity(graph: Topology, section: Any, space: Space) -> str:
    """A digest of all that the search depends on, of a schedule its first turns."""
    schedule = graph.schedule
    digest = sha256(repr((section.model_dump(), *space.__dict__.values(), graph.nodes, schedule.period)).encode())
    for turn in range(min(schedule.period or _TURNS, _TURNS)):
        matrix = schedule.matrix(turn).sparse
        for part in (matrix.indptr, matrix.indices, matrix.data):
            digest.update(part.tobytes())
    return digest.hexdigest()[:16]

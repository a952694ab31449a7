"""A method made ready to run at one seed: whatever is wrong with the experiment has been told by then."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm, State
from decentral.algorithms.hub import HUB, Hub
from decentral.algorithms.local import LocalOptimizer
from decentral.algorithms.tokens import TokenMethod
from decentral.compression import Space
from decentral.config import Clock, ConsensusControl, Experiment, OwnCode, Transport
from decentral.config.clock import SlowTime
from decentral.errors import ConfigError
from decentral.measure.gradient_times import gradient_s_of
from decentral.measure.straggling import straggling, with_stragglers
from decentral.measure.virtual import virtual_time
from decentral.methods import ResolvedMethod, methods
from decentral.peer import Peer
from decentral.topology import gallery
from decentral.topology.mixing import Row
from decentral.topology.schedule import REMEMBERED
from decentral.topology.topology import Topology
from decentral.training.algorithm import (
    algorithm_of,
    between_nodes,
    on_graph,
    refuse_ignored,
    refuse_mortal,
    refuse_unused_weights,
    vertices,
    warn_biased,
)
from decentral.training.consensus_step import ConsensusSteps
from decentral.training.cpu_share import group
from decentral.training.loop import Pace
from decentral.training.optimizer import local_optimizer
from decentral.training.straggling import Straggling
from decentral.training.task import Task, task
from decentral.transport.dry import DryNode

DRY_ROUNDS = 2000


@dataclass(frozen=True, eq=False)
class Prepared:
    """A method made ready: whatever can be wrong with the input has been found by now."""

    method: ResolvedMethod
    task: Task
    local: LocalOptimizer
    topology: Topology | None  # of the nodes; None for a centralized method
    algorithm: Algorithm | None  # None for DDP, which brings its own loop
    pace: Pace
    nodes: int
    groups: Topology | None = None  # the experiment's graph where it is another: of groups, or before D2's (I+W)/2
    diagnostics: frozenset[str] = frozenset()  # what evaluations measure besides
    clock: Clock | None = None  # of simulated runs
    folder: Path = Path()  # where the experiment's relative paths start
    stragglers: tuple[SlowTime, ...] = ()  # of real processes; the clock has them too
    least_gradient_s: float | None = None

    @property
    def graph(self) -> Topology | None:
        """What is drawn and analyzed: the graph of the experiment, whose vertices are nodes or groups."""
        return self.groups or self.topology

    @cached_property
    def training(self) -> Task:
        """The task as nodes train on it: where one serves and computes nothing, the others have its samples too."""
        return self.task.without(HUB) if isinstance(self.algorithm, Hub) else self.task

    @property
    def is_free(self) -> bool:
        """Whether nodes step at their own pace."""
        return self.algorithm is not None and self.algorithm.free_running

    @property
    def is_timed(self) -> bool:
        """Whether it lasts for a time, and not for so many rounds."""
        return self.is_free and self.pace.duration_s is not None

    @property
    def label(self) -> str:
        return self.method.label

    @property
    def consensus_step(self) -> float | None:
        """gamma, given or found, of a method that has one."""
        return getattr(self.algorithm, "consensus_step", None)

    @property
    def steps_per_round(self) -> int | None:
        """Of all nodes together; None for DDP."""
        return None if self.algorithm is None else self.algorithm.steps_per_round(self.nodes)

    def straggling(self, node: int) -> Straggling | None:
        """How slow a real process's node is made; None where it is as fast as it can be."""
        return straggling(self.stragglers, self.least_gradient_s, node, self.nodes, self.task.seed)

    def peer(self, node: int) -> Peer:
        """What the algorithm may know at a node."""
        topology = self.topology

        static = topology is None or topology.schedule.period == 1

        @lru_cache(REMEMBERED)  # a node asks for its row several times in a step
        def row(turn: int) -> Row:
            return topology.row(node, turn) if topology else Row(node, {node: 1.0}, ())

        rows = (lambda turn: row(0)) if static else row  # noqa: ARG005  every turn is alike
        return Peer(node, self.nodes, rows, self.task.layout, self.task.seed, static=static)

    def meta(self) -> Tensor:
        """A flat vector `(d,)` that holds no numbers."""
        return torch.empty(self.task.parameters, dtype=self.task.dtype, device="meta")

    @property
    def busiest(self) -> int:
        """A node with the most neighbors."""
        topology = self.topology
        return max(range(self.nodes), key=lambda node: len(topology.neighbors(node))) if topology else 0

    def dry_run(self, node: int) -> DryNode:
        """What a node sends in up to DRY_ROUNDS rounds, without data and neighbors."""
        return self.dry_state(node)[0]

    def dry_state(self, node: int) -> tuple[DryNode, State]:
        """The same, and the State after those rounds, of tensors that hold no numbers."""
        assert self.algorithm is not None
        peer, dry = self.peer(node), DryNode(self.nodes)
        state = self.algorithm.init(self.meta(), peer)
        for peer.round in range(min(self.pace.rounds, DRY_ROUNDS)):
            dry.advance(self.algorithm.step(state, peer))
        return dry, state


def prepare(
    experiment: Experiment,
    method: ResolvedMethod,
    seed: int,
    shared: Task | None = None,
    steps: ConsensusSteps | None = None,
) -> Prepared:
    """Build the task, the graph, the local optimizer and the algorithm of a method.

    Args:
        shared: the task, where an earlier method of the same seed built it.
        steps: the consensus steps of this job, where they are searched for once.

    Raises:
        ConfigError: whatever is wrong with the experiment, its files or the user's code.
        MissingEnvironmentError: a package is missing.
    """
    local = local_optimizer(method.optimizer, experiment.rounds)
    algorithm = algorithm_of(method.algorithm, local, experiment.folder)
    refuse_ignored(algorithm, local, method.algorithm.name, method.optimizer.path)
    refuse_mortal(algorithm, experiment, method.algorithm.name)
    if experiment.transport.survive and isinstance(algorithm, TokenMethod):
        algorithm = replace(algorithm, survive=True)
    groups, topology = _graphs(experiment, method, algorithm)
    algorithm = on_graph(algorithm, topology, method.algorithm.path)
    pace = Pace(experiment.rounds, experiment.evaluate_every, experiment.duration_s, experiment.evaluate_every_s)
    shared = shared or task(experiment, seed)
    warn_biased(algorithm, experiment, shared.data.shards is not None, method.algorithm.name)
    space = Space(shared.parameters, shared.dtype, shared.layout)
    algorithm = (steps or ConsensusSteps()).tuned(algorithm, topology, space)
    diagnostics = frozenset(experiment.diagnostics)
    if (clock := with_stragglers(experiment.clock, experiment.stragglers)) is not None:
        virtual_time(clock, experiment.nodes, seed, experiment.folder)
    ready = Prepared(
        method,
        shared,
        local,
        topology,
        algorithm,
        pace,
        experiment.nodes,
        groups,
        diagnostics,
        clock,
        experiment.folder,
        tuple(experiment.stragglers),
        experiment.least_gradient_s,
    )
    _check_stragglers_and_parameters(ready)
    return ready


def _check_stragglers_and_parameters(ready: Prepared) -> None:
    """Some faults show only where all is there: those of any straggler, and options that do not suit the model."""
    ready.straggling(0)
    if ready.algorithm is not None and not is_own(ready.method):  # which may need numbers
        ready.algorithm.init(ready.meta(), ready.peer(0))


def _graphs(
    experiment: Experiment, method: ResolvedMethod, algorithm: Algorithm | None
) -> tuple[Topology | None, Topology | None]:
    """The experiment's graph, where it is another, and the graph of nodes, where a method has them."""
    section = method.topology
    if method.algorithm.centralized:
        return None, None
    vertex_count = vertices(algorithm, experiment.nodes, method.algorithm.path)
    graph = gallery.load(section, vertex_count, experiment.folder)
    refuse_unused_weights(algorithm, section, method.algorithm.name)
    whole = between_nodes(algorithm, graph, section.path)
    return None if whole is graph else graph, whole


def prepare_all(
    experiment: Experiment, candidates: Sequence[ResolvedMethod], seed: int, steps: ConsensusSteps | None = None
) -> list[Prepared]:
    """All methods at one seed, over one task."""
    steps = steps or ConsensusSteps()
    first = prepare(experiment, candidates[0], seed, None, steps)
    return [first, *(prepare(experiment, method, seed, first.task, steps) for method in candidates[1:])]


def own_method(experiment: Experiment, steps: ConsensusSteps | None = None) -> Prepared:
    """The experiment's own method at its first seed."""
    return prepare(experiment, methods(experiment)[0], experiment.seeds[0], steps=steps)


def refuse_unsimulated(prepared: Prepared) -> None:
    """Raise ConfigError for DDP, which has no simulated nodes, and for asynchronous methods where no time goes by."""
    section, clock = prepared.method.algorithm, prepared.clock
    if prepared.algorithm is None:
        raise ConfigError("DDP runs on real processes only; use `decentral train`", section.path)
    if not prepared.algorithm.free_running:
        return
    if clock is None:
        raise ConfigError(
            f"{section.name} is asynchronous: what happens depends on time, which simulated runs have none of; give "
            "it, such as clock: {gradient_s: 0.01}",
            section.path,
        )
    if clock.replay is None and min(gradient_s_of(clock, prepared.nodes)) == 0:
        raise ConfigError(
            f"found a gradient that takes 0 s; {section.name} would make steps for ever with no time going by",
            (*clock.path, "gradient_s"),
        )


def refuse_unfit_ranks(prepared: Prepared, transport: Transport) -> None:
    """Find out whether a method's nodes can be real processes that are linked so.

    Raises:
        ConfigError: an asynchronous method over NCCL.
    """
    if prepared.algorithm is None or not prepared.algorithm.free_running:
        return
    name = prepared.method.algorithm.name
    if transport.name == "nccl":
        problem = "NCCL's links need both ends at once, and its nodes do not wait; use transport: gloo, or auto"
        raise ConfigError(f"{name} is asynchronous: {problem}", (*transport.path, "name"))


def refuse_unlimited(prepared: Prepared) -> None:
    """Raise MissingEnvironmentError where this machine cannot give a process the share of a core that is asked for."""
    for share in {each.cpu for each in prepared.stragglers if each.cpu is not None}:
        with group(share):
            pass


def is_own(method: ResolvedMethod) -> bool:
    """Whether it is the user's own code, controlled or not."""
    section = method.algorithm
    return isinstance(section.of if isinstance(section, ConsensusControl) else section, OwnCode)

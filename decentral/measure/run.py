"""Run one method at one seed: on real processes, or in the lockstep simulator. Everything a run needs is built here."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

from decentral.algorithms.algorithm import Algorithm, State
from decentral.algorithms.local import LocalOptimizer
from decentral.algorithms.tokens import TokenMethod
from decentral.compression import Space
from decentral.config import Clock, ConsensusControl, Experiment, OwnCode
from decentral.errors import ConfigError, DecentralError, DivergedError, LostNeighborError, PreemptedError
from decentral.measure.evaluation import Evaluator, Observe
from decentral.measure.recording import Tracing, recording
from decentral.measure.saving import Keeping, saving
from decentral.measure.virtual import simulator, virtual_time
from decentral.methods import ResolvedMethod, methods
from decentral.peer import Peer
from decentral.timeline import Timeline
from decentral.topology import gallery
from decentral.topology.mixing import Row
from decentral.topology.topology import Topology
from decentral.training.algorithm import (
    algorithm_of,
    between_nodes,
    on_graph,
    refuse_ignored,
    refuse_unused_weights,
    vertices,
)
from decentral.training.consensus_step import ConsensusSteps
from decentral.training.ddp import train_ddp
from decentral.training.loop import Measure, Pace, train
from decentral.training.objective import Objective
from decentral.training.optimizer import local_optimizer
from decentral.training.task import Task, task
from decentral.training.traced import TracedGradient, traced_ddp, traced_local
from decentral.transport.driver import Driver, GradientAt, all_reduce_bytes
from decentral.transport.dry import DryNode
from decentral.transport.rank import RankDriver
from decentral.transport.traced import TracedDriver
from decentral.transport.world import World
from decentral.user_code import blame

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

    @property
    def graph(self) -> Topology | None:
        """What is drawn and analyzed: the graph of the experiment, whose vertices are nodes or groups."""
        return self.groups or self.topology

    @property
    def label(self) -> str:
        return self.method.label

    @property
    def consensus_step(self) -> float | None:
        """gamma, given or found, of a method that has one."""
        return getattr(self.algorithm, "consensus_step", None)

    def peer(self, node: int) -> Peer:
        """What the algorithm may know at a node."""
        topology = self.topology

        def rows(turn: int) -> Row:
            return topology.row(node, turn) if topology else Row(node, {node: 1.0}, ())

        static = topology is None or topology.schedule.period == 1
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
    groups, topology = _graphs(experiment, method, algorithm)
    algorithm = on_graph(algorithm, topology, method.algorithm.path)
    pace = Pace(experiment.rounds, experiment.evaluate_every)
    shared = shared or task(experiment, seed)
    space = Space(shared.parameters, shared.dtype, shared.layout)
    algorithm = (steps or ConsensusSteps()).tuned(algorithm, topology, space)
    diagnostics = frozenset(experiment.diagnostics)
    if (clock := experiment.clock) is not None:
        virtual_time(clock, experiment.nodes)
    ready = Prepared(method, shared, local, topology, algorithm, pace, experiment.nodes, groups, diagnostics, clock)
    if algorithm is not None and not _is_own(method):  # which may need numbers
        algorithm.init(ready.meta(), ready.peer(0))  # it knows whether its options suit so many parameters
    return ready


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


def refuse_ddp(prepared: Prepared) -> None:
    """Raise ConfigError for DDP, which has no simulated nodes."""
    if prepared.algorithm is None:
        raise ConfigError("DDP runs on real processes only; use `decentral train`", prepared.method.algorithm.path)


def simulate(prepared: Prepared, observe: Observe, keeping: Keeping | None = None) -> dict[int, nn.Module]:
    """Run in the lockstep simulator, or the clock's; the trained module of each node.

    Args:
        keeping: how the run is checkpointed, and where it begins; from the beginning without checkpoints unless given.

    Raises:
        ConfigError: DDP, which runs on real processes only.
        DivergedError: a loss is not finite.
        PreemptedError: SIGTERM ended the run.
    """
    refuse_ddp(prepared)
    objectives = {node: prepared.task.objective(node) for node in range(prepared.nodes)}
    assert prepared.algorithm is not None
    driver = simulator([each.gradient for each in objectives.values()], prepared.algorithm, prepared.clock)
    return _trained(prepared, driver, objectives, observe, keeping)


def run_on(
    world: World,
    prepared: Prepared,
    epoch: int,
    run: int,
    observe: Observe,
    keeping: Keeping | None = None,
    tracing: Tracing | None = None,
) -> dict[int, nn.Module]:
    """Run this process's node of a method on real processes; its trained module, by node.

    Args:
        epoch: number of the run in this job; no two runs of a job share one.
        run: 64-bit digest of the experiment.
        keeping: how the run is checkpointed, and where it begins; from the beginning without checkpoints unless given.
        tracing: where the run's timeline is written, if it has one; the models are the same.

    Raises:
        DivergedError: a loss is not finite, here or at another node.
        LostNeighborError: a neighbor died or stayed silent.
        PreemptedError: SIGTERM ended the run.
    """
    task = prepared.task
    with recording(world, epoch, tracing, prepared.label, task.seed) if tracing else nullcontext() as timeline:
        return _run_on(world, prepared, epoch, run, observe, keeping, timeline)


def _run_on(
    world: World,
    prepared: Prepared,
    epoch: int,
    run: int,
    observe: Observe,
    keeping: Keeping | None,
    timeline: Timeline | None,
) -> dict[int, nn.Module]:
    if world.agree(f"data/{epoch}", str(prepared.task.fingerprint)) != str(prepared.task.fingerprint):
        raise ConfigError(
            f"node {world.rank} loaded other samples than node 0; data must be the same on all: seed what it draws"
        )
    driver, objective = _driver_and_objective(world, prepared, epoch, run, timeline)
    try:
        if prepared.algorithm is None:
            return _trained_by_ddp(world, prepared, driver, epoch, observe, timeline)
        if timeline is not None:
            local = traced_local(prepared.local, timeline)
            prepared = replace(prepared, algorithm=replace(prepared.algorithm, local=local))
        return _trained(prepared, driver, {world.rank: objective}, observe, keeping, world, epoch, timeline)
    except PreemptedError:
        raise
    except DecentralError as error:
        world.report(epoch, error)
        raise _with_first_cause(error, world.first_fault(epoch)) from error
    except Exception as error:
        world.report(epoch, DecentralError(f"node {world.rank} failed: {blame(error)}"))
        raise
    finally:
        driver.close()


def _driver_and_objective(
    world: World, prepared: Prepared, epoch: int, run: int, timeline: Timeline | None
) -> tuple[Driver, Objective]:
    if timeline is None:
        objective = prepared.task.objective(world.rank)
        return driver_of(world, prepared, objective.gradient, run, epoch), objective
    gradient = TracedGradient(prepared.task, world.rank, timeline)
    driver = driver_of(world, prepared, gradient, run, epoch, timeline)
    return TracedDriver(driver, timeline), gradient.objective


def driver_of(
    world: World, prepared: Prepared, gradient: GradientAt, run: int, epoch: int, timeline: Timeline | None = None
) -> RankDriver:
    """The driver of this process's node for one run."""
    largest = _largest_frame(prepared, world.rank)
    return world.driver(prepared.topology, gradient, run, epoch, largest, timeline)


def _largest_frame(prepared: Prepared, node: int) -> int:
    """Bytes of the largest message that a node will exchange; 0 if there is none, or that cannot be known."""
    if prepared.topology is None or prepared.algorithm is None or isinstance(prepared.algorithm, TokenMethod):
        return 0
    try:
        return prepared.dry_run(node).largest_frame
    except (RuntimeError, TypeError, ValueError):
        if _is_own(prepared.method):  # it may need numbers, which a dry run has not
            return 0
        raise


def _is_own(method: ResolvedMethod) -> bool:
    """Whether it is the user's own code, controlled or not."""
    section = method.algorithm
    return isinstance(section.of if isinstance(section, ConsensusControl) else section, OwnCode)


def _trained(
    prepared: Prepared,
    driver: Driver,
    objectives: Mapping[int, Objective],
    observe: Observe,
    keeping: Keeping | None,
    world: World | None = None,
    epoch: int = 0,
    timeline: Timeline | None = None,
) -> dict[int, nn.Module]:
    assert prepared.algorithm is not None
    peers = {node: prepared.peer(node) for node in objectives}
    modules = {node: objective.module for node, objective in objectives.items()}
    evaluate: Measure = Evaluator(prepared.task, driver, modules, observe, prepared.diagnostics, prepared.topology)
    if timeline is not None:
        evaluate = timeline.timed("evaluate", evaluate)
    start = prepared.task.start()
    saved = keeping.saved if keeping else None
    with saving(keeping, driver.hosted, world, epoch) as boundary:
        models = train(prepared.algorithm, driver, peers, objectives, start, prepared.pace, evaluate, boundary, saved)
    return {node: objectives[node].module_at(x) for node, x in models.items()}


def _trained_by_ddp(
    world: World, prepared: Prepared, driver: Driver, epoch: int, observe: Observe, timeline: Timeline | None
) -> dict[int, nn.Module]:
    module, node = prepared.task.module(), world.rank
    task, local = prepared.task, prepared.local
    evaluate: Measure = Evaluator(task, driver, {node: module}, observe, prepared.diagnostics)
    if timeline is not None:
        evaluate = timeline.timed("evaluate", evaluate)
        task, local = traced_ddp(task, local, module, timeline)
    gradient_bytes = all_reduce_bytes(prepared.task.start(), world.size)

    def measure(round: int, *of: Any) -> None:
        driver.bytes_sent[node] = round * gradient_bytes
        evaluate(round, *of)

    train_ddp(module, task, local, world, epoch, prepared.pace, measure)
    return {node: module}


def _with_first_cause(error: DecentralError, first: tuple[int, str] | None) -> DecentralError:
    """A lost neighbor is often the echo of a fault elsewhere: say which."""
    if first is None or first[1] == str(error):
        return error
    if not isinstance(error, LostNeighborError):
        error.echo = first[0] == error.exit_code
        return error
    code, text = first
    if code == LostNeighborError.exit_code:
        return LostNeighborError(f"{error}; before that: {text}")
    cause = DivergedError(text) if code == DivergedError.exit_code else DecentralError(text)
    cause.exit_code, cause.echo = code, True
    return cause


def digest(experiment: Experiment) -> int:
    """64 bits of the experiment: ranks with another one are refused, and so are their frames."""
    return int.from_bytes(sha256(experiment.model_dump_json().encode()).digest()[:8], "little")

"""This process's place among the ranks, and the models that it has wrapped."""

import sys
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from itertools import count
from typing import Any

import networkx as nx
from torch import Tensor, nn
from torch.optim import Optimizer

from decentral.algorithms.algorithm import Algorithm
from decentral.compression import Space
from decentral.errors import ConfigError
from decentral.fused import warm_up
from decentral.peer import LossAndGradient, Peer
from decentral.topology.mixing import Row
from decentral.topology.topology import Topology
from decentral.training.algorithm import between_nodes, on_graph, refuse_ignored, vertices
from decentral.training.consensus_step import ConsensusSteps
from decentral.transport.world import World
from decentral.wrapping.flat_model import FlatModel
from decentral.wrapping.optimizer import GossipOptimizer
from decentral.wrapping.rounds import Rounds
from decentral.wrapping.settings import Named, algorithm_named, placed, topology_named
from decentral.wrapping.user_optimizer import UserOptimizer
from decentral.wrapping.wrapped import Buffers, Wrapped, start_alike


class Session:
    """What `decentral.init` makes and `decentral.shutdown` ends.

    Args:
        world: the ranks of this job.
        epochs: numbers for the runs of this job, one for each wrapped model; all ranks take the same ones.
    """

    def __init__(self, world: World, epochs: Iterator[int] | None = None) -> None:
        self.world = world
        self._epochs = count() if epochs is None else epochs
        self._wrapped: list[Wrapped] = []
        self._steps = ConsensusSteps(world, tell=_tell if world.rank == 0 else None)

    def wrap(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        algorithm: Named | type[Algorithm] = "dsgd",
        topology: Named | nx.Graph = "ring",
        compression: str | None = None,
        buffers: Buffers = "local",
        synchronize: bool = True,
        seed: int = 0,
    ) -> tuple[nn.Module, GossipOptimizer]:
        """See `decentral.wrap`."""
        self._check(model, optimizer, buffers)
        flat = FlatModel(model, optimizer)
        local = UserOptimizer(optimizer, flat)
        method = algorithm_named(algorithm, local, compression)
        with placed():
            parts = vertices(method, self.world.size, ("algorithm",))
            refuse_ignored(method, local, type(method).__name__, ("optimizer",))
            if method.starts_alike and not synchronize and self.world.size > 1:
                raise ConfigError(
                    f"found synchronize=False; {type(method).__name__} takes the neighbors' first models for the "
                    "node's own: leave synchronize at True, or take choco with start: zero",
                    ("algorithm",),
                )
        named = topology_named(topology, parts, method)
        with placed():
            graph = between_nodes(method, named, ("topology",), tell=self.world.rank == 0)
            method = self._steps.tuned(method, graph, Space.of(flat.x, flat.layout))
        told = f"{_told(method)} on {graph.name} of {graph.nodes}, {len(graph.edges)} edges"
        with placed():
            method = on_graph(method, graph, ("algorithm",)) or method
        run = _digest(told, graph.edges, [tuple(block) for block in flat.layout], flat.x.dtype, buffers, seed)
        epoch = self._agreed_epoch(run, told)
        warm_up(flat.x.dtype)
        driver = self.world.driver(graph, _unanswered, run, epoch)
        try:
            if synchronize and self.world.size > 1:
                start_alike(driver, model, self.world.transport.connect_timeout_s)
            rows, static = _rows(graph, self.world.rank), graph.schedule.period == 1
            peer = Peer(self.world.rank, self.world.size, rows, flat.layout, seed, static=static)
            with placed():
                rounds = Rounds(method, driver, peer, flat, local)
            wrapped = Wrapped(
                self.world, driver, flat, rounds, GossipOptimizer(optimizer, rounds, local), told, buffers
            )
        except BaseException:
            driver.close()
            raise
        self._wrapped.append(wrapped)
        return model, wrapped.optimizer

    def _agreed_epoch(self, run: int, told: str) -> int:
        """The number of the next run, which every rank makes of the same."""
        epoch = next(self._epochs)
        if self.world.agree(f"wrap/{epoch}", str(run)) != str(run):
            raise ConfigError(
                f"node {self.world.rank} wraps another model, algorithm or topology than node 0 ({told}); "
                "every rank must call decentral.wrap with the same"
            )
        return epoch

    def _check(self, model: nn.Module, optimizer: Optimizer, buffers: str) -> None:
        if buffers not in ("local", "average"):
            raise ConfigError(f"found buffers {buffers!r}; required: 'local' or 'average'")
        if isinstance(optimizer, GossipOptimizer):
            raise ConfigError("this optimizer is wrapped already; wrap it with its model, once")
        taken = {id(parameter) for wrapped in self._wrapped for parameter in wrapped.model.module.parameters()}
        if any(id(parameter) in taken for parameter in model.parameters()):
            raise ConfigError("this model, or a part of it, is wrapped already; wrap the whole of it, once")

    def wrapped(self, model_or_optimizer: object) -> Wrapped:
        """What was wrapped with this model or optimizer.

        Raises:
            ConfigError: neither was.
        """
        for wrapped in self._wrapped:
            if model_or_optimizer is wrapped.model.module or model_or_optimizer is wrapped.optimizer:
                return wrapped
        kind = type(model_or_optimizer).__name__
        raise ConfigError(f"this {kind} is not one that decentral.wrap returned in this session")

    def close(self) -> None:
        """End all runs of this process and give their links back."""
        for wrapped in self._wrapped:
            wrapped.close("decentral.shutdown() was called")
        self._wrapped.clear()


def _tell(line: str) -> None:
    sys.stderr.write(f"decentral: {line}\n")


def _unanswered(at: Tensor) -> LossAndGradient:
    raise AssertionError(f"a gradient at {tuple(at.shape)} was asked of the driver; the user's loop answers it")


def _rows(topology: Topology, node: int) -> Callable[[int], Row]:
    def rows(turn: int) -> Row:
        return topology.row(node, turn)

    return rows


def _told(algorithm: Algorithm) -> str:
    """`DSGD(order='adapt-then-combine', every=1)`."""
    options: Mapping[str, Any] = {key: value for key, value in vars(algorithm).items() if key != "local"}
    said = {key: _told(value) if isinstance(value, Algorithm) else repr(value) for key, value in options.items()}
    return f"{type(algorithm).__name__}({', '.join(f'{key}={value}' for key, value in said.items())})"


def _digest(*parts: object) -> int:
    return int.from_bytes(sha256(repr(parts).encode()).digest()[:8], "little")

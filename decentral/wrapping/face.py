"""The functions of `import decentral`: one session per process, over whatever launcher started it."""

import atexit
from collections.abc import Mapping
from contextlib import AbstractContextManager
from itertools import count
from typing import Any

import networkx as nx
from torch import nn
from torch.optim import Optimizer

from decentral.algorithms.algorithm import Algorithm
from decentral.errors import ConfigError
from decentral.transport.launcher import launched
from decentral.transport.world import World
from decentral.wrapping.optimizer import GossipOptimizer
from decentral.wrapping.session import Session
from decentral.wrapping.settings import Named, placed, transport_of
from decentral.wrapping.wrapped import Buffers

_EPOCHS = count()
_session: Session | None = None


def init(
    transport: Named | None = None, *, timeout_s: float | None = None, connect_timeout_s: float | None = None
) -> None:
    """Join the other ranks of the job that a launcher started, or be the only one where none did.

    Args:
        transport: a name or a mapping, as an experiment's `transport` section.
        timeout_s: how long a step waits for a neighbor.
        connect_timeout_s: how long ranks wait for each other at the start.

    Raises:
        ConfigError: called twice, or an unknown transport.
        MissingEnvironmentError: the launcher's variables are incomplete, or the meeting point cannot be reached.
        LostNeighborError: a rank did not come in time.
    """
    global _session
    if _session is not None:
        raise ConfigError("decentral.init() was called before; call it once, or decentral.shutdown() in between")
    with placed():
        section = transport_of(transport, timeout_s=timeout_s, connect_timeout_s=connect_timeout_s)
    this = launched()
    world = World.alone(section) if this is None else World.join(this, section, this.size, 0)
    _session = Session(world, _EPOCHS)
    atexit.register(shutdown)


def wrap(
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
    """Let an ordinary training loop train by gossip; all ranks call it together.

    The model returned is the one given: its trained parameters now lie in one vector, under the same names. Each
    `step()` of the optimizer returned is one round of the algorithm, with the optimizer given as its local optimizer.

    Args:
        model: complete, on the CPU, its trained parameters of one dtype.
        optimizer: over parameters of the model; those it does not hold, and frozen ones, are left alone.
        algorithm: a name such as "dsgd", `module:Class`, a class that extends Algorithm, or a mapping with one of
            these as `name` and the algorithm's options beside it.
        topology: a name of the gallery, the path of a graph file, a networkx graph on the nodes 0..size-1, or a mapping
            with one of these as `name`, and `weights` and the graph's options beside it.
        compression: what neighbors are sent, such as "bf16", of an algorithm that compresses; None: all of it.
        buffers: "local": each node's running statistics stay its own; "average": `evaluate_averaged` averages them.
        synchronize: start every node with node 0's parameters and buffers; otherwise each keeps its own.
        seed: of the algorithm's own draws.

    Raises:
        ConfigError: before `init`; wrapped before; unfit or unequal arguments.
        LostNeighborError: a rank did not come in time.
    """
    return _joined().wrap(
        model,
        optimizer,
        algorithm=algorithm,
        topology=topology,
        compression=compression,
        buffers=buffers,
        synchronize=synchronize,
        seed=seed,
    )


def evaluate_averaged(model: nn.Module, *, patience_s: float = 600.0) -> AbstractContextManager[nn.Module]:
    """A context in which a wrapped model is the average of all nodes' models; all ranks enter and leave it together.

    It is for measurement and for the final model: training never averages over all nodes. Parameters are averaged,
    and floating-point buffers where `wrap` was told so.

    Args:
        patience_s: how much longer than in a step to wait, at its end, for ranks that evaluate longer.

    Raises:
        ConfigError: not a wrapped model.
        LostNeighborError: a rank died or did not come.
    """
    return _joined().wrapped(model).averaged(patience_s)


def state_dict(optimizer: Optimizer) -> dict[str, Any]:
    """What a wrapped optimizer's algorithm carries beside `model.state_dict()` and `optimizer.state_dict()`.

    Every rank saves its own three: with them a run goes on as if it had not been interrupted.

    Raises:
        ConfigError: not a wrapped optimizer, or called between a forward pass in training and `optimizer.step()`.
    """
    return _joined().wrapped(optimizer).state_dict()


def load_state_dict(optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """Take back what `state_dict` gave on this rank.

    Raises:
        ConfigError: of another rank, number of ranks or method, or called within a round.
    """
    _joined().wrapped(optimizer).load_state_dict(saved)


def rank() -> int:
    """This process's node, 0..size-1."""
    return _joined().world.rank


def size() -> int:
    """How many nodes there are."""
    return _joined().world.size


def shutdown() -> None:
    """Close all links. The models stay as they are; at the end of a program this happens by itself."""
    global _session
    atexit.unregister(shutdown)
    if _session is not None:
        _session.close()
        _session = None


def _joined() -> Session:
    if _session is None:
        raise ConfigError("decentral.init() has not been called; call it first, on every rank")
    return _session

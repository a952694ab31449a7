"""The algorithm that an experiment names: one of the registry, or a class of the user's own."""

import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from decentral import config
from decentral.algorithms import ALGORITHMS, ASYNCHRONOUS_METHODS, CONTROLLERS, HUB_METHODS, TOKEN_METHODS
from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.consensus_control import ConsensusControl
from decentral.algorithms.controllable import controllable
from decentral.algorithms.hierarchical import Hierarchical
from decentral.algorithms.hub import Hub
from decentral.algorithms.local import Local
from decentral.config import KeyPath
from decentral.errors import ConfigError
from decentral.topology.groups import members
from decentral.topology.schedule import weakest
from decentral.topology.topology import Topology
from decentral.user_code import called, checked_options, imported

UNBIASED = "async-sgd with assign: random or shuffled and a constant rule, or fedfix, has no such bias"


def algorithm_of(section: config.Algorithm, local: Local, folder: Path) -> Algorithm | None:
    """The algorithm of a section with its local optimizer; None for DDP, which brings its own loop.

    Raises:
        ConfigError: no such class, not an algorithm, or options that it does not take.
    """
    if isinstance(section, config.DDP):
        return None
    if isinstance(section, config.ConsensusControl):
        return _controlled(section, local, folder)
    if not isinstance(section, config.OwnCode):
        options = {key: getattr(section, key) for key in type(section).model_fields if key != "name"}
        known = {**ALGORITHMS, **TOKEN_METHODS, **ASYNCHRONOUS_METHODS, **HUB_METHODS}
        made: Algorithm = known[section.name](local=local, **options)
        return made
    own = imported(section.name, folder, section.path)
    return own_algorithm(own, section.options, local, section.name, section.path)


def _controlled(section: config.ConsensusControl, local: Local, folder: Path) -> Algorithm:
    of = controllable(algorithm_of(section.of, local, folder), section.of.name, section.of.path)
    options = {key: getattr(section, key) for key in ("target", "relative", "max_steps")}
    phases = [(phase.start, phase.target) for phase in section.phases]
    try:
        return CONTROLLERS[section.name](local=local, of=of, phases=phases, **options)
    except ConfigError as error:
        raise ConfigError(str(error), (*section.path, "phases")) from error


def own_algorithm(own: object, options: Mapping[str, Any], local: Local, name: str, at: KeyPath) -> Algorithm:
    """An algorithm of the user's own class.

    Raises:
        ConfigError: not an algorithm, or options that it does not take.
    """
    if not (isinstance(own, type) and issubclass(own, Algorithm)):
        raise ConfigError(
            f"{name} is {own!r}; it must be a class that extends decentral.algorithms.algorithm.Algorithm", at
        )
    checked = checked_options(partial(own, local=local), options, at)
    made: Algorithm = called(own, options={"local": local, **checked}, at=at)
    return made


def refuse_ignored(algorithm: Algorithm | None, local: Local, name: str, at: KeyPath) -> None:
    """Raise ConfigError where a method that takes the local step itself would ignore what its optimizer is to do.

    Args:
        name: of the method, for the user.
        at: the optimizer's key path.
    """
    taken = algorithm
    if isinstance(algorithm, ConsensusControl):
        taken, name = algorithm.of, type(algorithm.of).__name__
    if taken is not None and taken.owns_step and (beyond := local.beyond_sgd()):
        raise ConfigError(
            f"found {beyond}; {name} takes the local step itself, so its optimizer must be torch.optim.SGD with no "
            "more than lr and weight_decay; what the method has of momentum is an option of `algorithm:`",
            at,
        )


def refuse_unused_weights(algorithm: Algorithm | None, section: config.Topology, name: str) -> None:
    """Raise ConfigError where a topology's section chooses weights that the method would ignore.

    Args:
        name: of the method, for the user.
    """
    if algorithm is None or algorithm.uses_weights:
        return
    for key, value in {"weights": section.weights, "scaling": section.scaling}.items():
        if value not in (None, "none"):
            raise ConfigError(f"found {value}; {name} uses no mixing weights: leave {key} out", (*section.path, key))


def refuse_mortal(algorithm: Algorithm | None, experiment: config.Experiment, name: str) -> None:
    """Raise ConfigError where a run cannot survive a death although `transport.survive` asks for it.

    Args:
        name: of the method, for the user.
    """
    asked = experiment.transport
    if not asked.survive:
        return
    at = (*asked.path, "survive")
    if algorithm is None or not algorithm.survives:
        raise ConfigError(
            f"survive, but nodes of {name} wait for every neighbor, a dead one too; use a token method, such as "
            "mcgd, or leave survive out",
            at,
        )
    if asked.name in ("mpi", "nccl"):
        raise ConfigError(f"survive over {asked.name}, which ends with the first death; use gloo or shared-memory", at)
    if (every := experiment.checkpoint.every) is not None:
        raise ConfigError(
            f"survive with checkpoint.every: {every}; a checkpoint needs every node: leave one of the two out", at
        )


def warn_biased(algorithm: Algorithm | None, experiment: config.Experiment, is_split: bool, name: str) -> None:
    """Warn where nodes hold different data, and a hub's method lets fast nodes count for more.

    Args:
        is_split: whether the data is split by nature.
        name: of the method, for the user.
    """
    if not isinstance(algorithm, Hub) or not (why := algorithm.favors_fast()):
        return
    sections = experiment.partition, experiment.shift
    how: list[str] = [section.name for section in sections if section and section.name != "iid"]
    how += ["split by nature"] if is_split else []
    if how:
        warnings.warn(
            f"{name} with {why}: nodes hold different data ({', '.join(how)}), and the model will turn to that of fast "
            f"nodes; {UNBIASED}",
            stacklevel=3,
        )


def vertices(algorithm: Algorithm | None, nodes: int, at: KeyPath) -> int:
    """How many vertices the algorithm's topology has: one for each node, or for each group of nodes.

    Raises:
        ConfigError: the nodes do not fall into such groups.
    """
    size = algorithm.group if isinstance(algorithm, Hierarchical) else 1
    if nodes % size:
        raise ConfigError(f"nodes: {nodes} do not fall into groups of {size}; group must divide nodes", (*at, "group"))
    return nodes // size


def between_nodes(algorithm: Algorithm | None, graph: Topology, at: KeyPath, *, tell: bool = True) -> Topology:
    """The graph of nodes that the algorithm's topology means: itself, or its groups taken apart.

    Args:
        at: the topology's key path, for errors.
        tell: warn where the method takes another mixing matrix than the graph's.

    Raises:
        ConfigError: the algorithm does not work with such mixing matrices.
    """
    needed, found = algorithm.mixing if algorithm else "doubly-stochastic", graph.schedule.kind
    if weakest(needed, found) != needed:
        raise ConfigError(
            f"the mixing matrix of {graph.name} is {found}, and {type(algorithm).__name__} needs one that is {needed}: "
            "else the mean of all models drifts; take undirected links, nodes that send and receive equally, or sgp",
            at,
        )
    if not isinstance(algorithm, Hierarchical):
        return _suited(algorithm, graph, at, tell)
    return members(graph, algorithm.group, linked=1 if algorithm.between == "leaders" else algorithm.group)


def on_graph(algorithm: Algorithm | None, graph: Topology | None, at: KeyPath) -> Algorithm | None:
    """The algorithm made ready for the graph of nodes.

    Args:
        at: the algorithm's key path, for errors.

    Raises:
        ConfigError: its options do not fit the graph.
    """
    if algorithm is None or graph is None:
        return algorithm
    try:
        return algorithm.on(graph)
    except ConfigError as error:
        raise ConfigError(str(error), error.at or at) from error


def _suited(algorithm: Algorithm | None, graph: Topology, at: KeyPath, tell: bool) -> Topology:
    if algorithm is None:
        return graph
    try:
        suited, told = algorithm.suited(graph)
    except ConfigError as error:
        raise ConfigError(str(error), error.at or at) from error
    if told and tell:
        warnings.warn(told, stacklevel=4)
    return suited

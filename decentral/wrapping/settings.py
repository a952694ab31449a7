"""What `init` and `wrap` are told, checked as an experiment's sections are: the same names, bounds and messages."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import networkx as nx

from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.local import Local
from decentral.algorithms.tokens import TokenMethod
from decentral.document import dotted
from decentral.errors import ConfigError
from decentral.loading import example_with
from decentral.topology import gallery
from decentral.topology.assembly import Family, topology_of
from decentral.topology.topology import Topology
from decentral.training.algorithm import algorithm_of, own_algorithm, refuse_unused_weights

Named = str | Mapping[str, Any]
"""A name, or a mapping with `name` and options, as a section of an experiment file has it."""


def transport_of(transport: Named | None, **shorthands: Any) -> Any:
    """The transport section; a shorthand that is not None replaces the option of its name.

    Raises:
        ConfigError: an unknown name or option, or a value out of bounds.
    """
    given = {key: value for key, value in shorthands.items() if value is not None}
    return example_with(transport={**_mapping(transport or {}), **given}).transport


def algorithm_named(algorithm: Named | type[Algorithm], local: Local, compression: str | None = None) -> Algorithm:
    """The algorithm that `wrap` is told, by name, by class, or by a mapping whose `name` is either.

    Args:
        compression: one more of its options, where it is given.

    Raises:
        ConfigError: unknown, unfit, or with options that it does not take; DDP, which brings its own loop.
    """
    options = _mapping(algorithm) | ({} if compression is None else {"compression": compression})
    name = options.get("name")
    with placed():
        if isinstance(name, type):
            del options["name"]
            return own_algorithm(name, options, local, name.__qualname__, ("algorithm",))
        made = algorithm_of(example_with(algorithm=options).algorithm, local, Path())
    if made is None:
        raise ConfigError("algorithm 'ddp' is torch's DistributedDataParallel itself; wrap the model in that instead")
    if isinstance(made, TokenMethod):
        raise ConfigError(
            f"algorithm {name!r} moves the model from node to node, so a training loop has none between its visits; "
            "run it by `decentral train`"
        )
    if made.free_running:
        raise ConfigError(f"algorithm {name!r} has steps of its own pace; a training loop in rounds has none such")
    return made


def topology_named(topology: Named | nx.Graph, nodes: int, algorithm: Algorithm) -> Topology:
    """The topology that `wrap` is told, by name, path or graph, or by a mapping whose `name` is one of these.

    Raises:
        ConfigError: no such graph, a fault in its file, unknown options, those that the algorithm would ignore, or not
            on the nodes 0..nodes-1.
    """
    options = _mapping(topology)
    graph = options.get("name")
    with placed():
        if isinstance(graph, nx.Graph):
            section = example_with(topology={**options, "name": "graph"}).topology
            refuse_unused_weights(algorithm, section, type(algorithm).__name__)
            for key in section.options:
                raise ConfigError(
                    f"found the option {key!r}; a graph that is given takes `weights`, `scaling` and `schedule`"
                )
            return topology_of(Family([graph], "the given graph"), section, nodes)
        section = example_with(topology=options).topology
        refuse_unused_weights(algorithm, section, type(algorithm).__name__)
        if nodes == 1:  # a ring of one has no edges, and other graphs no such size
            gallery.find(section.name, Path())
            return Topology.static(section.name, nx.empty_graph(1), "metropolis")
        return gallery.load(section, nodes, Path())


@contextmanager
def placed() -> Iterator[None]:
    """Within it, errors that know their key say it."""
    try:
        yield
    except ConfigError as error:
        if not error.at:
            raise
        raise ConfigError(f"{dotted(error.at)}: {error}") from error


def _mapping(named: Any) -> dict[str, Any]:
    return dict(named) if isinstance(named, Mapping) else {"name": named}

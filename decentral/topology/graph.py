"""The boundary where a graph from outside becomes one to rely on: the nodes 0..n-1, connected, with sound weights."""

from math import isfinite
from numbers import Integral, Real
from typing import Any

import networkx as nx

from decentral.errors import ConfigError

MAX_EDGES = 20_000_000


def checked_graph(graph: object, nodes: int, source: str) -> nx.Graph:
    """A frozen copy with the nodes 0..nodes-1 in order and no edge attribute but `weight`; self-loops are kept.

    Args:
        graph: what a `build(nodes)` returned or a file holds.
        nodes: how many nodes are required.
        source: the file's name, for errors.

    Raises:
        ConfigError: not an undirected simple graph on exactly these nodes, not connected, too large, or an edge's
            weight is negative or not a finite number.
    """
    checked = _simple(graph, source)
    _check_nodes(checked, nodes, source)
    _check_weights(checked, source)
    _check_connected(checked, source)
    return nx.freeze(_plain(checked))


def _simple(graph: object, source: str) -> nx.Graph:
    wanted = "a simple undirected networkx.Graph is required"
    if not isinstance(graph, nx.Graph):
        raise ConfigError(f"{source} {_verb(source)} a {type(graph).__name__}; {wanted}")
    if graph.is_directed():
        raise ConfigError(f"{source} {_verb(source)} a directed graph; {wanted}: apply .to_undirected()")
    if graph.is_multigraph():
        raise ConfigError(f"{source} {_verb(source)} a multigraph; {wanted}: wrap it in networkx.Graph(...)")
    edges = graph.number_of_edges()
    if edges > MAX_EDGES:
        raise ConfigError(f"{source} {_verb(source)} {edges:,} edges; at most {MAX_EDGES:,} are allowed")
    return graph


def _check_nodes(graph: nx.Graph, nodes: int, source: str) -> None:
    duty = "build(nodes) must return" if source.endswith(".py") else "the file must hold"
    if len(graph) != nodes:
        raise ConfigError(
            f"{source} {_verb(source)} {len(graph)} nodes for nodes={nodes}; {duty} exactly the nodes 0..nodes-1"
        )
    for label in graph:
        if not isinstance(label, Integral) or isinstance(label, bool) or int(label) not in range(nodes):
            raise ConfigError(
                f"{source} {_verb(source)} a node labeled {_shown(label)} for nodes={nodes}; {duty} exactly the nodes "
                "0..nodes-1, as integers"
            )


def _check_weights(graph: nx.Graph, source: str) -> None:
    for i, j, weight in graph.edges(data="weight"):
        number = isinstance(weight, Real) and not isinstance(weight, bool)
        if weight is not None and not (number and isfinite(weight) and weight >= 0):
            raise ConfigError(
                f"edge {i}-{j} of {source} has weight {_shown(weight)}; a weight must be a finite number, 0 or more"
            )


def _check_connected(graph: nx.Graph, source: str) -> None:
    parts = sorted(nx.connected_components(graph), key=len)
    if len(parts) > 1:
        raise ConfigError(
            f"{source} {_verb(source)} a disconnected graph: {len(parts)} components, the smallest of {len(parts[0])} "
            f"node(s) with node {min(parts[0])}; every node must reach every other: add edges between the components"
        )


def _plain(graph: nx.Graph) -> nx.Graph:
    plain = nx.empty_graph(len(graph))
    edges = ((int(min(i, j)), int(max(i, j)), weight) for i, j, weight in graph.edges(data="weight"))
    for i, j, weight in sorted(edges):
        plain.add_edge(i, j, **({} if weight is None else {"weight": float(weight)}))
    return plain


def _verb(source: str) -> str:
    return "returned" if source.endswith(".py") else "holds"


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:40]}..."

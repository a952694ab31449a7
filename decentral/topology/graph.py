"""The boundary where a graph from outside becomes one to rely on: the nodes 0..n-1, connected, with sound weights.

A directed edge i -> j lets i send to j.
"""

from collections.abc import Iterable, Sequence
from math import isfinite
from numbers import Integral, Real
from typing import Any

import networkx as nx

from decentral.errors import ConfigError

MAX_EDGES = 20_000_000


def checked_graph(graph: object, nodes: int, source: str) -> nx.Graph:
    """A frozen copy with the nodes 0..nodes-1 in order and no attributes but the edges' `weight` and the nodes' `pos`.

    Self-loops are kept; `pos` is kept where every node has two finite numbers.

    Args:
        graph: what a `build(nodes)` returned or a file holds.
        nodes: how many nodes are required.
        source: the file's name, for errors.

    Raises:
        ConfigError: not a simple graph on exactly these nodes, not connected (if directed: strongly), too large, or an
            edge's weight is negative or not a finite number.
    """
    checked = _simple(graph, source)
    _check_nodes(checked, nodes, source)
    _check_weights(checked, source)
    _check_connected(checked, source)
    return nx.freeze(_plain(checked))


def checked_turn(graph: object, nodes: int, source: str) -> nx.Graph:
    """The same of one turn's graph, which need not be connected nor name all nodes.

    Args:
        graph: a graph, or edges as (i, j) or (i, j, weight), which are undirected.

    Raises:
        ConfigError: as `checked_graph`.
    """
    given = graph if isinstance(graph, nx.Graph) else _of_edges(graph, source)
    turn = _simple(given, source).copy()
    turn.add_nodes_from(range(nodes))
    _check_nodes(turn, nodes, source)
    _check_weights(turn, source)
    return nx.freeze(_plain(turn))


def _of_edges(edges: object, source: str) -> nx.Graph:
    turn, wanted = nx.Graph(), "a networkx graph, or edges as (i, j) or (i, j, weight), is required"
    if not isinstance(edges, Iterable):
        raise ConfigError(f"{source} is a {type(edges).__name__}; {wanted}")
    for edge in edges:
        if not isinstance(edge, Sequence) or len(edge) not in (2, 3):
            raise ConfigError(f"{source} has the edge {_shown(edge)}; {wanted}")
        turn.add_edge(edge[0], edge[1], **({"weight": edge[2]} if len(edge) == 3 else {}))
    return turn


def _simple(graph: object, source: str) -> nx.Graph:
    wanted = "a simple networkx.Graph or DiGraph is required"
    if not isinstance(graph, nx.Graph):
        raise ConfigError(f"{source} {_verb(source)} a {type(graph).__name__}; {wanted}")
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
    components = nx.strongly_connected_components if graph.is_directed() else nx.connected_components
    parts = sorted(components(graph), key=len)
    if len(parts) > 1:
        strongly = " strongly" if graph.is_directed() else ""
        raise ConfigError(
            f"{source} {_verb(source)} a graph that is not{strongly} connected: {len(parts)}{strongly and ' strong'} "
            f"components, the smallest of {len(parts[0])} node(s) with node {min(parts[0])}; every node must reach "
            "every other: add edges between the components"
        )


def _plain(graph: nx.Graph) -> nx.Graph:
    directed = graph.is_directed()
    plain = nx.empty_graph(len(graph), create_using=nx.DiGraph if directed else nx.Graph)
    edges = ((int(i), int(j), weight) for i, j, weight in graph.edges(data="weight"))
    for i, j, weight in sorted((edge if directed else (*sorted(edge[:2]), edge[2]) for edge in edges), key=_ends):
        plain.add_edge(i, j, **({} if weight is None else {"weight": float(weight)}))
    nx.set_node_attributes(plain, _positions(graph), "pos")
    return plain


def _positions(graph: nx.Graph) -> dict[int, tuple[float, float]]:
    found = {}
    for node, pos in graph.nodes(data="pos"):
        try:
            x, y = (float(coordinate) for coordinate in pos)
        except (TypeError, ValueError):
            return {}
        if not (isfinite(x) and isfinite(y)):
            return {}
        found[int(node)] = (x, y)
    return found


def _ends(edge: tuple[int, int, object]) -> tuple[int, int]:
    return edge[:2]


def _verb(source: str) -> str:
    return "returned" if source.endswith(".py") else "holds"


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 40 else f"{text[:40]}..."

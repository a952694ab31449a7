"""Graphs from data files. They may come from anywhere, so nothing in them is executed, fetched or expanded.

GraphML is read without DTD, entities and external references; edge lists hold literals only. Whatever goes wrong in a
file is one ConfigError.
"""

from ast import literal_eval
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import networkx as nx
from defusedxml.ElementTree import fromstring

from decentral.errors import ConfigError

MAX_BYTES = 64 * 2**20


def graphml(content: bytes) -> nx.Graph:
    """The graph of a GraphML document; node ids are numbers."""
    fromstring(content, forbid_dtd=True, forbid_entities=True, forbid_external=True)
    graph = nx.read_graphml(BytesIO(content), node_type=node_label)
    for _, _, data in graph.edges(data=True):
        for key, value in graph.graph["edge_default"].items():
            data.setdefault(key, value)
    return graph


def edge_list(content: bytes) -> nx.Graph:
    """The graph of an edge list: one edge `i j`, `i j weight` or `i j {'weight': w}` a line, `#` begins a comment."""
    graph = nx.Graph()
    for number, line in enumerate(content.decode("utf-8-sig").splitlines(), start=1):
        fields = line.partition("#")[0].split(maxsplit=2)
        if fields:
            _add_edge(graph, fields, number)
    return graph


READERS: dict[str, Callable[[bytes], nx.Graph]] = {
    ".graphml": graphml,
    ".edgelist": edge_list,
    ".txt": edge_list,
}

_EXPECTED: dict[Callable[[bytes], nx.Graph], str] = {
    graphml: "GraphML without DTD or entities, its node ids 0..nodes-1",
    edge_list: "one edge a line, as `i j`, `i j weight` or `i j {'weight': w}`",
}


def read(path: Path) -> nx.Graph:
    """The graph in a data file, by its suffix; not yet checked.

    Raises:
        ConfigError: the file cannot be read, is too large or is malformed.
    """
    reader = READERS[path.suffix]
    try:
        return reader(_content(path))
    except Exception as error:
        raise ConfigError(f"cannot read {path}: {_reason(error)}; expected {_EXPECTED[reader]}") from error


def node_label(text: str) -> int | str:
    """The number that `text` writes in the usual way, else the text itself."""
    plain = text.isascii() and text.isdigit() and len(text) < 10 and str(int(text)) == text
    return int(text) if plain else text


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES // 2**20} MB")
    return content


def _add_edge(graph: nx.Graph, fields: list[str], number: int) -> None:
    if len(fields) < 2:
        raise ValueError(f"line {number} holds {fields[0][:40]!r} alone")
    i, j = node_label(fields[0]), node_label(fields[1])
    data = _edge_data(fields[2].strip(), number) if len(fields) > 2 else {}
    if graph.has_edge(i, j) and graph.edges[i, j] != data:
        raise ValueError(f"line {number} gives the edge {i}-{j} again with other data")
    graph.add_edge(i, j, **data)


def _edge_data(text: str, number: int) -> dict[str, Any]:
    try:
        if not text.startswith("{"):
            return {"weight": float(text)}
        data = literal_eval(text)
    except Exception as error:
        raise ValueError(f"line {number} has {text[:40]!r} after the edge") from error
    if not (isinstance(data, dict) and all(isinstance(key, str) for key in data)):
        raise ValueError(f"line {number} has {text[:40]!r} after the edge, not a mapping by names")
    return data


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return text if type(error) is ValueError and text else f"{type(error).__name__}: {text}"

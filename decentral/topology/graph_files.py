"""Graphs from data files. They may come from anywhere, so nothing in them is executed, fetched or expanded.

GraphML is read without DTD, entities and external references; edge lists hold literals only; arrays hold numbers, not
pickle. Whatever goes wrong in a file is one ConfigError. Where a format says that a graph is directed, an edge i -> j
lets i send to j. Labels that are text but write a number are that number.
"""

import csv
import json
from ast import literal_eval
from collections.abc import Callable
from io import BytesIO, StringIO
from math import prod
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from defusedxml.ElementTree import fromstring
from numpy.lib import format as npy

from decentral.errors import ConfigError
from decentral.topology.graph import MAX_EDGES
from decentral.topology.stochastic import TOLERANCE

MAX_BYTES = 64 * 2**20


def graphml(content: bytes) -> nx.Graph:
    """The graph of a GraphML document; node ids are numbers."""
    fromstring(content, forbid_dtd=True, forbid_entities=True, forbid_external=True)
    graph = nx.read_graphml(BytesIO(content), node_type=node_label)
    for _, _, data in graph.edges(data=True):
        for key, value in graph.graph["edge_default"].items():
            data.setdefault(key, value)
    return graph


def gml(content: bytes) -> nx.Graph:
    """The graph of a GML document; a node is what its label says where all labels are numbers, else its id."""
    graph = nx.parse_gml(content.decode("utf-8-sig").splitlines(), label="id")
    labels = {node: node_label(str(label)) for node, label in graph.nodes(data="label")}
    if all(isinstance(label, int) for label in labels.values()) and len(set(labels.values())) == len(labels):
        return nx.relabel_nodes(graph, labels)
    return graph


def edge_list(content: bytes) -> nx.Graph:
    """The graph of an edge list: one edge `i j`, `i j weight` or `i j {'weight': w}` a line, `#` begins a comment."""
    graph = nx.Graph()
    for number, line in enumerate(content.decode("utf-8-sig").splitlines(), start=1):
        fields = line.partition("#")[0].split(maxsplit=2)
        if not fields:
            continue
        if len(fields) < 2:
            raise ValueError(f"line {number} holds {fields[0][:40]!r} alone")
        where = f"line {number}"
        data = _edge_data(fields[2].strip(), where) if len(fields) > 2 else {}
        _add_edge(graph, node_label(fields[0]), node_label(fields[1]), data, where)
    return graph


def comma_separated(content: bytes) -> nx.Graph:
    """The undirected graph of a table of edges: `i,j` or `i,j,weight` a row, or columns in the order of a header."""
    rows = csv.reader(StringIO(content.decode("utf-8-sig"), newline=""), strict=True, skipinitialspace=True)
    graph, columns = nx.Graph(), ["source", "target", "weight"]
    for first, row in enumerate(rows):
        fields = [field.strip() for field in row]
        if not first and fields[:1] and isinstance(node_label(fields[0]), str):
            columns = _columns([field.lower() for field in fields])
        elif any(fields):
            named, where = dict(zip(columns, fields, strict=False)), f"line {rows.line_num}"
            if len(fields) > len(columns) or "target" not in named or "source" not in named:
                raise ValueError(f"{where} has {len(fields)} fields ({','.join(fields)[:40]!r})")
            data = {"weight": _weight(named["weight"], where)} if named.get("weight") else {}
            _add_edge(graph, node_label(named["source"]), node_label(named["target"]), data, where)
    return graph


def adjacency(content: bytes) -> nx.Graph:
    """The graph of an `(n, n)` array in NumPy's format: row i holds whom i sends to.

    It is undirected where the array is symmetric. Entries are weights, unless all of them are 0 or 1.
    """
    entries = _square(content)
    if not np.isfinite(entries).all():
        i, j = np.argwhere(~np.isfinite(entries))[0]
        raise ValueError(f"entry [{i}, {j}] is {entries[i, j]}")
    undirected = bool((np.abs(entries - entries.T) <= TOLERANCE).all())
    kept = np.triu(entries) if undirected else entries
    rows, columns = np.nonzero(kept)
    if len(rows) > MAX_EDGES:
        raise ValueError(f"it has {len(rows):,} edges; at most {MAX_EDGES:,} are allowed")
    graph = nx.empty_graph(len(entries), create_using=nx.Graph if undirected else nx.DiGraph)
    pairs, values = zip(rows.tolist(), columns.tolist(), strict=True), kept[rows, columns]
    if (values == 1).all():
        graph.add_edges_from(pairs)
    else:
        graph.add_weighted_edges_from((i, j, weight) for (i, j), weight in zip(pairs, values.tolist(), strict=True))
    return graph


def node_link(content: bytes) -> nx.Graph:
    """The graph of a JSON document as networkx.node_link_data makes it, its edges under `edges` or `links`."""
    document = json.loads(content)
    if not isinstance(document, dict) or "nodes" not in document or not {"edges", "links"} & document.keys():
        raise ValueError("it is no mapping with `nodes` and `edges` or `links`")
    if document.get("multigraph"):
        raise ValueError("it is a multigraph")
    graph = nx.DiGraph() if document.get("directed") else nx.Graph()
    for node in document["nodes"]:
        graph.add_node(_json_label(node["id"]), **({"pos": node["pos"]} if "pos" in node else {}))
    for number, edge in enumerate(document["edges" if "edges" in document else "links"]):
        i, j = _json_label(edge["source"]), _json_label(edge["target"])
        for end in (i, j):
            if end not in graph:
                raise ValueError(f"edge {number} names the node {str(end)[:40]!r}, which is not among the nodes")
        _add_edge(graph, i, j, {"weight": edge["weight"]} if "weight" in edge else {}, f"edge {number}")
    return graph


READERS: dict[str, Callable[[bytes], nx.Graph]] = {
    ".graphml": graphml,
    ".gml": gml,
    ".edgelist": edge_list,
    ".txt": edge_list,
    ".csv": comma_separated,
    ".npy": adjacency,
    ".json": node_link,
}

_EXPECTED: dict[Callable[[bytes], nx.Graph], str] = {
    graphml: "GraphML without DTD or entities, its node ids 0..nodes-1",
    gml: "GML of a simple graph, its labels or else its ids 0..nodes-1",
    edge_list: "one edge a line, as `i j`, `i j weight` or `i j {'weight': w}`",
    comma_separated: "one edge a line, as `i,j` or `i,j,weight`, under a header of source, target and weight or none",
    adjacency: "a square array of finite numbers as numpy.save writes it, no pickle",
    node_link: "node-link JSON: nodes with an id, edges or links with source, target and perhaps weight",
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


def _add_edge(graph: nx.Graph, i: int | str, j: int | str, data: dict[str, Any], where: str) -> None:
    if graph.has_edge(i, j) and graph.edges[i, j] != data:
        raise ValueError(f"{where} gives the edge {i}-{j} again with other data")
    graph.add_edge(i, j, **data)


def _edge_data(text: str, where: str) -> dict[str, Any]:
    if not text.startswith("{"):
        return {"weight": _weight(text, where)}
    try:
        data = literal_eval(text)
    except Exception as error:
        raise ValueError(f"{where} has {text[:40]!r} after the edge") from error
    if not (isinstance(data, dict) and all(isinstance(key, str) for key in data)):
        raise ValueError(f"{where} has {text[:40]!r} after the edge, not a mapping by names")
    return data


def _weight(text: str, where: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{where} has {text[:40]!r} after the edge") from error


def _columns(header: list[str]) -> list[str]:
    unknown = [name for name in header if name not in ("source", "target", "weight")]
    if unknown or len(set(header)) < len(header) or not {"source", "target"} <= set(header):
        raise ValueError(f"the header is {','.join(header)[:60]!r}")
    return header


def _square(content: bytes) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The array, whose bytes are counted before anything of its size is made."""
    file = BytesIO(content)
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"it is of format version {version[0]}.{version[1]}")
    shape, by_columns, dtype = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are pickled")
    if dtype.kind not in "biuf":
        raise ValueError(f"it holds {dtype}")
    if len(shape) != 2 or shape[0] != shape[1] or not shape[0]:
        raise ValueError(f"its shape is {shape}")
    entries = content[file.tell() :]
    if len(entries) != prod(shape) * dtype.itemsize:
        raise ValueError(f"shape {shape} of {dtype} takes {prod(shape) * dtype.itemsize} bytes, found {len(entries)}")
    flat = np.frombuffer(entries, dtype).astype(np.float64)
    return flat.reshape(shape, order="F" if by_columns else "C")


def _json_label(label: Any) -> Any:
    if isinstance(label, list | dict) or label is None:
        raise ValueError(f"a node's id is {str(label)[:40]}")
    return node_label(label) if isinstance(label, str) else label


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    return text if type(error) is ValueError and text else f"{type(error).__name__}: {text}"

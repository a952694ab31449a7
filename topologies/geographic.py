"""Geographic graph: the nodes are places, and those within a radius of each other are linked.

Random places in the unit square make the random geometric graph, connected with high probability above the radius
sqrt(ln n / (pi n)) (Gupta and Kumar 1998); its gap shrinks as radius^2 (Boyd et al. 2005).
"""

import csv
from math import inf, isfinite, log, pi, sin
from pathlib import Path
from random import Random

import networkx as nx
import numpy as np
from scipy.spatial import KDTree

EARTH_KM = 6371.0
GROWTH = 1.05
HEADERS = (["x", "y"], ["latitude", "longitude"])


def build(nodes: int, *, radius: float | None = None, seed: int = 0, places: Path | None = None) -> nx.Graph:
    """Links by distance.

    Args:
        nodes: how many.
        radius: how far a link reaches, in the unit of the places; in km where they are latitudes and longitudes.
            Unless given, sqrt(ln n / (pi n)) times the longer side of them all, then 5 % more until all are connected.
        seed: of random places in the unit square, the same on every machine.
        places: a .csv in place of random ones: a row for each node, in their order, under the header x,y or
            latitude,longitude.
    """
    if radius is not None and not 0 < radius < inf:
        raise ValueError(f"radius={radius}; a distance above 0 is required")
    random = Random(seed)
    flat, on_earth = [(random.random(), random.random()) for _ in range(nodes)], False
    if places is not None:
        flat, on_earth = _read(places, nodes)
    points = _on_earth(np.array(flat)) if on_earth else np.array(flat)
    pos = {node: (place[1], -place[0]) if on_earth else place for node, place in enumerate(flat)}
    if radius is not None:
        chord = 2 * EARTH_KM * sin(min(radius / EARTH_KM, pi) / 2)
        return _within(points, chord if on_earth else radius, pos)
    reach = float(np.ptp(points, axis=0).max()) * (log(nodes) / (pi * nodes)) ** 0.5
    graph = _within(points, reach, pos)
    while not nx.is_connected(graph):
        reach *= GROWTH
        graph = _within(points, reach, pos)
    return graph


def _within(points: np.ndarray, reach: float, pos: dict[int, tuple[float, float]]) -> nx.Graph:
    graph = nx.empty_graph(len(points))
    graph.add_edges_from(KDTree(points).query_pairs(reach))
    nx.set_node_attributes(graph, pos, "pos")
    return graph


def _on_earth(degrees: np.ndarray) -> np.ndarray:
    """`(n, 3)` in km: straight distances between points of the sphere grow with those along it."""
    latitude, longitude = np.radians(degrees).T
    around = np.cos(latitude)
    return EARTH_KM * np.stack([around * np.cos(longitude), around * np.sin(longitude), np.sin(latitude)], axis=1)


def _read(path: Path, nodes: int) -> tuple[list[tuple[float, float]], bool]:
    """The places, and whether they are latitudes and longitudes."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        header, *rows = [[field.strip() for field in row] for row in csv.reader(file) if row] or [[]]
    if header not in HEADERS:
        raise ValueError(f"{path} begins with {','.join(header)!r}; the header x,y or latitude,longitude is required")
    if len(rows) != nodes:
        raise ValueError(f"{path} holds {len(rows)} places for nodes={nodes}; a row for each node is required")
    found = []
    for number, row in enumerate(rows):
        try:
            first, second = (float(field) for field in row)
        except ValueError:
            first = second = inf
        if not (isfinite(first) and isfinite(second)):
            raise ValueError(f"the place of node {number} in {path} is {','.join(row)!r}; two numbers are required")
        found.append((first, second))
    return found, header == HEADERS[1]

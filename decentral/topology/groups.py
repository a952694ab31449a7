"""A graph of groups, taken apart into the nodes that are its groups' members."""

import networkx as nx
import numpy as np
from scipy.sparse import coo_array, csr_array

from decentral.topology.mixing import MixingMatrix
from decentral.topology.schedule import DrawnSchedule, TopologySchedule, cyclic
from decentral.topology.topology import Topology


def members(groups: Topology, size: int, linked: int) -> Topology:
    """Each node g becomes the nodes g size, ..., g size + size - 1, and each edge links members of the same place.

    With W the matrix of the groups and D the diagonal matrix with `linked` ones, then zeros, on `size` places, a turn's
    matrix is kron(W, D) + kron(I, I - D): whoever is not linked keeps what it has. There are no edges inside a group.

    Args:
        groups: the graph of groups, with its weights and schedule.
        size: members of each group.
        linked: how many of them, from the first on, are linked: 1 (leaders) to `size` (rank to rank).
    """
    assert 0 < linked <= size, (linked, size)
    graph = nx.empty_graph(groups.nodes * size)
    graph.add_edges_from((i * size + k, j * size + k) for i, j in groups.edges for k in range(linked))
    return Topology(groups.name, graph, _schedule(groups.schedule, size, linked))


def _schedule(of_groups: TopologySchedule, size: int, linked: int) -> TopologySchedule:
    def matrix(turn: int) -> MixingMatrix:
        return _matrix(of_groups.matrix(turn), size, linked)

    if of_groups.period is None:
        return DrawnSchedule(matrix, of_groups.kind)
    return cyclic(tuple(matrix(turn) for turn in range(of_groups.period)))


def _matrix(of_groups: MixingMatrix, size: int, linked: int) -> MixingMatrix:
    nodes, stored = of_groups.n * size, of_groups.sparse.tocoo()
    place = np.arange(linked)[:, None]
    rows, columns = (stored.row * size + place).ravel(), (stored.col * size + place).ravel()
    alone = np.flatnonzero(np.arange(nodes) % size >= linked)
    values = np.concatenate([np.tile(stored.data, linked), np.ones(len(alone))])
    where = np.concatenate([rows, alone]), np.concatenate([columns, alone])
    matrix = csr_array(coo_array((values, where), shape=(nodes, nodes)))
    matrix.sort_indices()
    return MixingMatrix(matrix)

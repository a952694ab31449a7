"""Weights by influence: how much a node takes of each neighbor, for nodes that are to count unequally.

Let one node at a time average, node i with probability p_i, x_i+ = w_ii x_i + sum_j w_ij x_j, its weights summing to 1.
With X all models, row by row, and w_i its weights as a vector:

    E[X+] = V X,    V = I + sum_i p_i e_i (w_i - e_i)^T,    v_ij = p_i w_ij where i and j are two nodes

So the mean of all models stays in expectation where V is symmetric, its rows summing to 1 already: on every link
p_i w_ij = p_j w_ji. If node i averages r_i times as often instead, the mean by weights p_i / r_i stays; a step of its
own moves that by p_i / r_i of itself, r_i times as often, so that its loss counts p_i all the same.

The weights themselves are chosen as in communication coefficient selection (CCS): nodes settle with their neighbors in
the order of their degrees, the largest first. With s_i the weights that node i has settled already, it would share what
is left of 1 with itself and the neighbors U_i that it has not settled with, in proportion to their influence:

    a_i = (1 - s_i) / (p_i + sum of p_k over k in U_i)
    p_i w_ij = p_j w_ji = p_i p_j min(a_i, a_j)

and keeps what is left in the end. Equal influence makes this symmetric, and 1 / (1 + degree) on regular graphs.

In the paper each node waits for neighbors of larger degree, takes what these offer, and of neighbors of its own degree
the lesser offer. What is said here that is not there: that it is always the lesser of both offers, since a node between
many with little left to do could otherwise be made to give away more than it has; the proportion to influence, where
the authors' code knows equal influence only; and that nodes of one degree settle at once, so that how they are numbered
does not matter.

Reference: Bornstein, Rabbani, Wang, Bedi and Huang 2023 (ICLR, arXiv:2210.14026), Algorithm 2.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from decentral.errors import ConfigError
from decentral.topology.stochastic import Floats
from decentral.topology.topology import Topology


def shares(influence: Sequence[float], nodes: int) -> Floats:
    """p `(n,)`, which sums to 1; the same for all nodes where nothing is given.

    Raises:
        ConfigError: not one positive number for each node.
    """
    p = np.array(influence or [1.0] * nodes, dtype=np.float64)
    if len(p) != nodes:
        raise ConfigError(f"found {len(p)} numbers of influence; required: one for each of the {nodes} nodes")
    if not (np.isfinite(p) & (p > 0)).all():
        raise ConfigError(f"found influence {p.min():g}; required: a positive number for each node")
    return np.asarray(p / p.sum())


def weights_by_influence(graph: Topology, influence: Sequence[float]) -> tuple[Mapping[int, float], ...]:
    """Of each node the weights of its neighbors and of itself, which sum to 1; nodes ascending.

    Args:
        graph: whose links nodes use in both directions; its own weights are not looked at.
        influence: in proportion; the same for all nodes where empty.

    Raises:
        ConfigError: not one positive number for each node.
    """
    p = shares(influence, graph.nodes)
    edges = np.array(graph.edges, dtype=np.int64).reshape(-1, 2)
    flows = _flows(edges, p)
    rows: list[dict[int, float]] = [{} for _ in p]
    for (i, j), flow in zip(edges.tolist(), flows.tolist(), strict=True):
        rows[i][j], rows[j][i] = flow / float(p[i]), flow / float(p[j])
    for node, row in enumerate(rows):
        row[node] = max(1 - sum(row.values()), 0.0)
    return tuple(dict(sorted(row.items())) for row in rows)


def _flows(edges: np.ndarray, p: Floats) -> Floats:
    """`(E,)`: p_i w_ij = p_j w_ji of the edges `(E, 2)`."""
    degrees = np.bincount(edges.ravel(), minlength=len(p))
    left, open_to = np.ones(len(p)), p.copy()  # 1 - s_i, and the influence of itself and U_i
    np.add.at(open_to, edges, p[edges[:, ::-1]])
    flows, turn = np.zeros(len(edges)), degrees[edges].max(axis=1, initial=0)
    for degree in np.unique(turn)[::-1]:
        here = turn == degree
        ends = edges[here]
        offers = left[ends] / open_to[ends]
        flows[here] = p[ends].prod(axis=1) * offers.min(axis=1)
        np.subtract.at(left, ends, flows[here, None] / p[ends])
        np.subtract.at(open_to, ends, p[ends[:, ::-1]])
    return flows

"""Epidemic graph: in each turn every node sends to a few others, drawn anew from all (de Vos et al. 2023).

Balanced, EL-Oracle: a random regular graph, so that whoever sends to a node receives from it, weights 1 / (s + 1). Else
EL-Local: each node draws s recipients for itself, and receives from s others in the mean, at times from none. That
matrix is column-stochastic, each node sharing out 1 / (s + 1): it is for push-sum, and for algorithm epidemic, which
takes the plain mean of what came. Any two nodes may meet, so each is linked to all others.

Reference: arXiv:2310.01972, which advises s = log2 n.
"""

import networkx as nx
import numpy as np

WEIGHTS = "column-stochastic"


def build(nodes: int, *, recipients: int | None = None, balanced: bool = True, seed: int = 0) -> nx.Graph:
    """Whoever may meet; `recipients` is s, 2 unless given, and `seed` that of the draws."""
    s = _recipients(nodes, recipients)
    if balanced and s * nodes % 2:
        raise ValueError(f"recipients={s} and nodes={nodes} are both odd, which no graph allows; change one of them")
    if seed < 0:
        raise ValueError(f"seed={seed}; required: 0 or more")
    return nx.complete_graph(nodes, create_using=nx.Graph if balanced else nx.DiGraph)


def schedule(turn: int, nodes: int, *, recipients: int | None = None, balanced: bool = True, seed: int = 0) -> nx.Graph:
    s, random = _recipients(nodes, recipients), np.random.default_rng([seed, turn])
    if balanced:
        return nx.random_regular_graph(s, nodes, seed=int(random.integers(2**31)))
    graph = nx.empty_graph(nodes, create_using=nx.DiGraph)
    for node in range(nodes):
        drawn = random.choice(nodes - 1, s, replace=False) if s else []
        graph.add_edges_from((node, int(other) + (other >= node)) for other in drawn)
    return graph


def _recipients(nodes: int, asked: int | None) -> int:
    if asked is None:
        return min(2, nodes - 1)
    if not 1 <= asked < nodes:
        raise ValueError(f"recipients={asked} for nodes={nodes}; a node sends to 1 to nodes-1 others")
    return asked

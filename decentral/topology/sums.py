"""What push-sum and RelaySum ask of a topology: their methods refuse by it, and `topology explain` says the same."""

import networkx as nx
import numpy as np

from decentral.errors import ConfigError
from decentral.topology.mixing import MixingMatrix
from decentral.topology.stochastic import row_sums
from decentral.topology.topology import Topology

LOOKED_AT = 32
"""Turns of a schedule that is drawn anew in each."""


def check_push_sum(graph: Topology, delay: int = 0) -> None:
    """Refuse where a node may be left with none of the sums, so that its model is 0 / 0 (Assran et al. 2019).

    Args:
        graph: over whose turns every node reaches every other.
        delay: rounds by which what neighbors send comes late; until it comes a node has what it keeps, alone.

    Raises:
        ConfigError: in some turn a node keeps nothing for itself, and receives nothing or receives it late.
    """
    if not delay and graph.schedule.kind != "column-stochastic":
        return  # its rows sum to 1
    for turn in range(graph.schedule.period or LOOKED_AT):
        W = graph.schedule.matrix(turn).sparse
        at_once = W.diagonal() if delay else row_sums(W)
        if not at_once.all():
            comes = f"receives what others send {delay} round(s) late" if delay else "receives nothing"
            raise ConfigError(
                f"in turn {turn} of {graph.name} node {int(np.argmin(at_once))} keeps nothing for itself and {comes}, "
                "so push-sum would divide 0 by 0; leave each node a weight of its own, as weights: column-stochastic do"
            )


def check_relay_sum(graph: Topology, trees: int | None = None) -> None:
    """Refuse where a sum that is relayed along all links would count a node twice, or never (Vogels et al. 2021).

    Args:
        graph: whose turns are the trees.
        trees: how many turns there must be; any number unless given.

    Raises:
        ConfigError: links are directed, are drawn anew in each turn, are no tree in some turn, or there are more turns
            or fewer.
    """
    period = graph.schedule.period
    if period is None:
        raise ConfigError(f"RelaySum needs fixed trees, and {graph.name} draws its links anew in each turn; try tree")
    for turn in range(period):
        _check_tree(graph.schedule.matrix(turn), graph.name if period == 1 else f"turn {turn} of {graph.name}")
    if trees is not None and period != trees:
        raise ConfigError(
            f"{graph.name} has {period} tree(s), one for each of its turns; found trees: {trees}, required: {period}"
        )


def _check_tree(matrix: MixingMatrix, where: str) -> None:
    arcs = nx.from_scipy_sparse_array(matrix.sparse, create_using=nx.DiGraph)
    arcs.remove_edges_from([*nx.selfloop_edges(arcs)])
    for i, j in arcs.edges:
        if not arcs.has_edge(j, i):
            raise ConfigError(f"RelaySum needs undirected links, found {j} -> {i} alone in {where}; try tree")
    links = arcs.to_undirected()
    surplus = links.number_of_edges() - matrix.n + 1
    if not nx.is_connected(links):
        raise ConfigError(f"RelaySum needs a tree, and {where} does not connect all nodes; try tree")
    if surplus:
        raise ConfigError(
            f"RelaySum needs a tree, found {surplus} edge(s) more than one has in {where}: sums would count nodes "
            "twice; try tree"
        )

"""Gossip steps that belong to no turn of a schedule: one symmetric matrix on the links, and what it is sure to do.

With S the mean of a schedule's matrices and of their transposes, l_2 and l_n its second and last eigenvalues and
rho = max(|l_2|, |l_n|), for any models x_i with mean xbar:

    Xi^2 = 1/n sum_i ||x_i - xbar||^2 <= 1/(2n (1 - l_2)) sum_ij s_ij ||x_i - x_j||^2
    Xi(S^k X) <= rho^k Xi(X), and the mean stays

Of a static graph with symmetric weights S is its own matrix.
"""

from dataclasses import dataclass

import networkx as nx
from scipy.sparse import csr_array

from decentral.errors import ConfigError
from decentral.topology.contraction import mean_of, turns_of
from decentral.topology.distances import diameter
from decentral.topology.lazy import MARGIN
from decentral.topology.mixing import MixingMatrix
from decentral.topology.spectrum import EXACT_NODES, spectrum
from decentral.topology.topology import Topology


@dataclass(frozen=True, eq=False)
class ExtraGossip:
    """The matrix of such steps on a graph.

    Args:
        matrix: S, `(n, n)`, symmetric and doubly stochastic.
        hops: after so many, what every node passes on to all its neighbors has reached all.
        second: l_2.
        rho: what a step multiplies the consensus distance by at most.
    """

    matrix: MixingMatrix
    hops: int
    second: float
    rho: float

    @classmethod
    def on(cls, graph: Topology) -> "ExtraGossip":
        """That of a graph whose matrices are doubly stochastic.

        Raises:
            ConfigError: gossip by the mean matrix does not bring the nodes together.
        """
        mean = mean_of(turns_of(graph.schedule))
        if mean.kind != "symmetric":
            mean = MixingMatrix(csr_array((mean.sparse + mean.sparse.T) / 2))
        found = spectrum(mean)
        if found.gap < MARGIN / graph.nodes:
            raise ConfigError(
                f"gossip by the mean matrix of {graph.name} does not bring all nodes together (rho = "
                f"{1 - found.gap:.6f}), so no number of steps would keep them within a target; take a graph that is "
                "connected, or topology.scaling: lazy where two sides swap models"
            )
        return cls(mean, _hops(mean), found.second, 1 - found.gap)


def _hops(matrix: MixingMatrix) -> int:
    """The diameter of a matrix's links; where that is too long to find, twice the way from node 0 to the farthest."""
    links = nx.from_scipy_sparse_array(matrix.sparse)
    if len(links) <= EXACT_NODES:
        return diameter(links)
    return 2 * int(nx.eccentricity(links, 0))

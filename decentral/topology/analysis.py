"""What a topology is worth: the spectrum of its mixing matrix, its distances, and how fast it averages.

With eigenvalues 1 = l_1 > l_2 >= ... >= l_n > -1, one gossip step shrinks the distance to the mean by
rho = max(|l_2|, |l_n|) at least, so gap = 1 - rho is the number that convergence theorems speak of.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from math import ceil, inf, isfinite, log
from operator import or_
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
from scipy.linalg import eigvalsh
from scipy.sparse import csr_array
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh, svds

from decentral.topology.mixing import MixingMatrix
from decentral.topology.stochastic import Floats
from decentral.topology.topology import Topology

EXACT_NODES = 2000
"""Up to here all eigenvalues and the exact diameter are computed."""

SAMPLED_TURNS = 256
"""So many turns stand for a schedule that is drawn anew in each."""

NEGLIGIBLE = 1e-12
"""A rho up to here is the rounding error of an exact average."""


class Spectrum(NamedTuple):
    second: float  # l_2
    last: float  # l_n
    gap: float  # 1 - max(|l_2|, |l_n|)


@dataclass(frozen=True)
class Analysis:
    """The numbers of a topology that `explain` and `topology show` print.

    `rounds_to_halve` and `rounds_to_thousandth` count gossip steps until the distance of all nodes to their mean has
    shrunk to 1/2 and to 1/1000, in the worst case; infinite where rho is 1. The diameter is in hops.
    """

    nodes: int
    edges: int
    degree_min: int
    degree_max: int
    degree_mean: float
    diameter: int
    diameter_exact: bool  # False: the diameter is a lower bound
    l2: float
    ln: float
    gap: float
    rounds_to_halve: float
    rounds_to_thousandth: float

    def as_dict(self) -> dict[str, Any]:
        """The fields for JSON; None stands for infinity."""
        return {key: value if isfinite(value) else None for key, value in asdict(self).items()}


def analyze(topology: Topology) -> Analysis:
    """The analysis of a topology. With a schedule, l2 and ln are those of the mean matrix over a period."""
    degrees = [len(topology.neighbors(node)) for node in range(topology.nodes)]
    mean, gap = averaged(topology)
    second, last, _ = spectrum(mean)
    return Analysis(
        nodes=topology.nodes,
        edges=sum(degrees) // 2,
        degree_min=min(degrees),
        degree_max=max(degrees),
        degree_mean=sum(degrees) / topology.nodes,
        diameter=diameter(topology.graph),
        diameter_exact=topology.nodes <= EXACT_NODES,
        l2=second,
        ln=last,
        gap=gap,
        rounds_to_halve=rounds_to(1 / 2, gap),
        rounds_to_thousandth=rounds_to(1 / 1000, gap),
    )


def spectrum(matrix: MixingMatrix) -> Spectrum:
    """l_2, l_n and the gap of a symmetric mixing matrix; a single node has l_2 = l_n = 0 and gap 1.

    Above `EXACT_NODES` nodes l_2 is accurate to 1e-8 and l_n to 1e-5.
    """
    if matrix.n == 1:
        return Spectrum(0.0, 0.0, 1.0)
    if matrix.n <= EXACT_NODES:
        values = eigvalsh(matrix.dense())
        second, last = float(values[-2]), float(values[0])
    else:
        second, last = _second(matrix.sparse), _last(matrix.sparse)
    return Spectrum(second, last, 1 - max(abs(second), abs(last)))


def averaged(topology: Topology) -> tuple[MixingMatrix, float]:
    """The mean matrix over the turns of a schedule, and the gap per turn."""
    turns = [topology.schedule.matrix(turn) for turn in range(topology.schedule.period or SAMPLED_TURNS)]
    if len(turns) == 1:
        return turns[0], spectrum(turns[0]).gap
    return MixingMatrix(csr_array(sum(turn.sparse for turn in turns) / len(turns))), 1 - contraction(turns)


def contraction(turns: Sequence[MixingMatrix]) -> float:
    """rho of a schedule, per turn: the T-th root of the second singular value of the product of its T matrices.

    Above `EXACT_NODES` nodes it is accurate to 1e-6.
    """
    n = turns[0].n
    if n <= EXACT_NODES:
        product = reduce(lambda before, turn: turn.sparse @ before, turns, np.eye(n) - 1 / n)
        largest = float(np.linalg.norm(product, 2))
    else:
        largest = float(
            svds(_product(turns), k=1, v0=_start(turns[0].sparse), tol=1e-6, return_singular_vectors=False)[0]
        )
    return largest ** (1 / len(turns)) if largest > NEGLIGIBLE else 0.0


def _product(turns: Sequence[MixingMatrix]) -> LinearOperator:
    """x -> W_T ... W_1 (x - mean of x)."""
    matrices = [turn.sparse for turn in turns]

    def forward(x: Floats) -> Floats:
        return reduce(lambda before, matrix: matrix @ before, matrices, x - x.mean())

    def backward(x: Floats) -> Floats:
        back = reduce(lambda before, matrix: matrix.T @ before, reversed(matrices), x)
        return np.asarray(back - back.mean())

    return LinearOperator((turns[0].n,) * 2, matvec=forward, rmatvec=backward, dtype=np.float64)


def diameter(graph: nx.Graph) -> int:
    """The longest shortest path, in hops: exact up to `EXACT_NODES` nodes, above that a lower bound (double sweep)."""
    if len(graph) > EXACT_NODES:
        return int(nx.approximation.diameter(graph, seed=0))
    reached, everyone, hops = [1 << node for node in range(len(graph))], (1 << len(graph)) - 1, 0
    while any(known != everyone for known in reached):
        reached = [reduce(or_, (reached[j] for j in graph[node]), reached[node]) for node in range(len(graph))]
        hops += 1
    return hops


def rounds_to(fraction: float, gap: float) -> float:
    """The fewest rounds t with (1 - gap)^t <= fraction: 1 where one round is an exact average, infinite at gap 0."""
    rho = 1 - gap
    if rho <= NEGLIGIBLE:
        return 1
    if gap <= NEGLIGIBLE:
        return inf
    return max(1, ceil(log(fraction) / log(rho) - 1e-9))


def _second(W: csr_array) -> float:
    """Lanczos first. Where it is slow the gap is small, hence the graph has small cuts, hence sparse LU is cheap."""
    try:
        values = eigsh(W, k=2, which="LA", v0=_start(W), ncv=40, maxiter=50, tol=1e-9, return_eigenvectors=False)
    except ArpackNoConvergence:
        values = eigsh(W.tocsc(), k=2, sigma=1 + 1e-8, v0=_start(W), return_eigenvectors=False)
    return float(values.min())


def _last(W: csr_array) -> float:
    values = eigsh(W, k=1, which="SA", v0=_start(W), ncv=40, maxiter=1000, tol=1e-5, return_eigenvectors=False)
    return float(values[0])


def _start(W: csr_array) -> Floats:
    return np.random.default_rng(0).standard_normal(int(W.shape[0]))

"""What a topology is worth: degrees, distances, the spectrum of its mixing matrix, and how fast it averages.

With eigenvalues 1 = l_1 > l_2 >= ... >= l_n > -1, one gossip step shrinks the distance to the mean by
rho = max(|l_2|, |l_n|) at least, so gap = 1 - rho is the number that convergence theorems speak of. What rho is where W
is directed, or changes over time, is in contraction.py.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from decentral.topology.contraction import contraction_of, mean_of, product, rounds_to, turns_of
from decentral.topology.distances import diameter
from decentral.topology.mixing import MixingMatrix
from decentral.topology.spectrum import EXACT_NODES, largest_singular_value, second_modulus, spectrum
from decentral.topology.stochastic import Kind
from decentral.topology.topology import Topology

__all__ = ["Analysis", "analyze", "averaged", "diameter", "rounds_to", "spectrum"]


@dataclass(frozen=True)
class Analysis:
    """The numbers of a topology that `explain` and `topology show` print.

    The diameter is in hops. `l2` and `ln` are eigenvalues of the mean matrix over the turns; where that is not
    symmetric, they are None, and its second largest modulus of an eigenvalue and its second singular value stand in.
    `gap` is 1 - rho per turn, and `gap_of` says what rho is. `rounds_to_e`, `_halve` and `_thousandth` count gossip
    steps until the distance of all nodes to their mean has shrunk to 1/e, 1/2 and 1/1000, in the worst case; infinite
    where it never does.
    """

    nodes: int
    edges: int
    degree_min: int
    degree_max: int
    degree_mean: float
    diameter: int
    diameter_exact: bool  # False: the diameter is a lower bound
    mixing: Kind  # what the matrices of all turns are
    period: int | None  # None: each turn is drawn
    l2: float | None
    ln: float | None
    second_modulus: float | None
    second_singular_value: float | None
    gap: float
    gap_of: str
    rounds_to_e: float
    rounds_to_halve: float
    rounds_to_thousandth: float
    rounds_exact: bool  # False: they follow from rho

    def as_dict(self) -> dict[str, Any]:
        """The fields for JSON; None stands for infinity."""
        document = asdict(self)
        return {
            key: None if isinstance(value, float) and not isfinite(value) else value for key, value in document.items()
        }


def analyze(topology: Topology) -> Analysis:
    """The analysis of a topology."""
    degrees = [degree - 2 * topology.graph.has_edge(node, node) for node, degree in topology.graph.degree]
    turns = turns_of(topology.schedule)
    contraction = contraction_of(topology.schedule, turns)
    second, last, modulus, singular = _spectrum_of(topology, turns)
    to_e, to_halve, to_thousandth = contraction.rounds
    return Analysis(
        nodes=topology.nodes,
        edges=sum(degrees) // 2,
        degree_min=min(degrees),
        degree_max=max(degrees),
        degree_mean=sum(degrees) / topology.nodes,
        diameter=diameter(topology.graph),
        diameter_exact=topology.nodes <= EXACT_NODES,
        mixing=topology.schedule.kind,
        period=topology.schedule.period,
        l2=second,
        ln=last,
        second_modulus=modulus,
        second_singular_value=singular,
        gap=contraction.gap,
        gap_of=contraction.meaning,
        rounds_to_e=to_e,
        rounds_to_halve=to_halve,
        rounds_to_thousandth=to_thousandth,
        rounds_exact=contraction.exact,
    )


def averaged(topology: Topology) -> tuple[MixingMatrix, float]:
    """The mean matrix over the turns of a schedule, and the gap per turn."""
    turns = turns_of(topology.schedule)
    return mean_of(turns), contraction_of(topology.schedule, turns, counted=False).gap


def _spectrum_of(
    topology: Topology, turns: Sequence[MixingMatrix]
) -> tuple[float | None, float | None, float | None, float | None]:
    """l_2 and l_n of the mean matrix, else its second modulus and, if it keeps the mean, its second singular value."""
    mean = mean_of(turns)
    if topology.schedule.kind == "symmetric" or mean.kind == "symmetric":
        found = spectrum(mean)
        return found.second, found.last, None, None
    beside_one = product([mean])
    keeps_mean = mean.kind == "doubly-stochastic"
    singular = largest_singular_value(beside_one, int(mean.sparse.nnz)).value if keeps_mean else None
    return None, None, second_modulus(beside_one), singular

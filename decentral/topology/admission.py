"""Which methods may run on a topology, by what their theory asks of the mixing matrix, and why not."""

from collections.abc import Callable
from dataclasses import dataclass

from decentral.errors import ConfigError
from decentral.topology.analysis import Analysis
from decentral.topology.lazy import MARGIN
from decentral.topology.sums import check_push_sum, check_relay_sum
from decentral.topology.topology import Topology

D2_BOUND = -1 / 3
"""The last eigenvalue must lie above: below, the recursion of D2 grows; at it, a disagreement flips sign for ever."""


@dataclass(frozen=True)
class Verdict:
    """Whether a method may run, and why, or why not and what to do."""

    method: str
    admitted: bool
    reason: str


def admissions(topology: Topology, analysis: Analysis) -> list[Verdict]:
    """The verdicts on plain gossip, D2, CHOCO, push-sum and RelaySum.

    Args:
        analysis: of this topology.
    """
    judges = {"D-SGD": _gossip, "D2": _d2, "CHOCO": _choco}
    told = [Verdict(method, *judge(analysis)) for method, judge in judges.items()]
    told.append(_unless_refused("push-sum", check_push_sum, topology, _pushed(analysis)))
    told.append(_unless_refused("RelaySum", check_relay_sum, topology, _relayed(analysis)))
    return told


def _unless_refused(method: str, check: Callable[[Topology], None], topology: Topology, reason: str) -> Verdict:
    """By the check that the method itself refuses by."""
    try:
        check(topology)
    except ConfigError as error:
        return Verdict(method, False, str(error))
    return Verdict(method, True, reason)


def _gossip(analysis: Analysis) -> tuple[bool, str]:
    if analysis.mixing == "column-stochastic":
        return False, "the rows of the mixing matrix do not sum to 1, so gossip would drift off the mean; use push-sum"
    return True, f"the mixing matrix is {_words(analysis)}, so gossip keeps the mean"


def _d2(analysis: Analysis) -> tuple[bool, str]:
    """Tang et al. 2018 (arXiv:1803.07068), assumption 1."""
    if analysis.mixing != "symmetric":
        return False, f"it needs a symmetric mixing matrix, found a {_words(analysis)} one"
    if analysis.period != 1:
        return False, "it needs the same matrix in every round: the difference that it carries belongs to one W"
    assert analysis.ln is not None
    if analysis.ln <= D2_BOUND + MARGIN:
        where = "is" if analysis.ln >= D2_BOUND - MARGIN else "is below"
        return (
            False,
            f"the last eigenvalue {analysis.ln:.4f} {where} -1/3 and must be above; use scaling: lazy, (I + W)/2",
        )
    return True, f"the mixing matrix is symmetric, its last eigenvalue {analysis.ln:.4f} above -1/3".replace(
        "-0.0000", "0.0000"
    )


def _choco(analysis: Analysis) -> tuple[bool, str]:
    """Koloskova, Stich and Jaggi 2019 (arXiv:1902.00340); the memory-efficient form holds for one W."""
    if analysis.mixing != "symmetric":
        return False, f"it needs symmetric mixing matrices, found {_words(analysis)} ones"
    if analysis.period == 1:
        return True, "the mixing matrix is symmetric and fixed: one sum over the neighbors' public copies is kept"
    copies = analysis.degree_max
    return True, f"the weights change, so a public copy of each neighbor is kept: up to {copies} models per node"


def _pushed(analysis: Analysis) -> str:
    """Assran et al. 2019 (arXiv:1811.10792); a checked graph is strongly connected."""
    if analysis.mixing == "column-stochastic":
        return "the columns of the mixing matrix sum to 1 and every node reaches every other"
    return "nothing is gained: rows sum to 1 too, so its weights stay 1 and it is plain gossip"


def _relayed(analysis: Analysis) -> str:
    """Vogels et al. 2021 (arXiv:2110.04175)."""
    if analysis.period == 1:
        return f"the graph is a tree; what a node says has reached all after {analysis.diameter} rounds"
    return f"each turn is a tree; relay-sgd with trees: {analysis.period} relays a part of the model along each"


def _words(analysis: Analysis) -> str:
    return analysis.mixing.replace("-", " ")

"""Which methods may run on a topology, by what their theory asks of the mixing matrix, and why not."""

from dataclasses import dataclass

from decentral.topology.analysis import Analysis
from decentral.topology.lanczos import LAST_WITHIN
from decentral.topology.spectrum import EXACT_NODES

D2_BOUND = -1 / 3
"""The last eigenvalue must lie above: below, the recursion of D2 grows; at it, a disagreement flips sign for ever."""


@dataclass(frozen=True)
class Verdict:
    """Whether a method may run, and why, or why not and what to do."""

    method: str
    admitted: bool
    reason: str


def admissions(analysis: Analysis) -> list[Verdict]:
    """The verdicts on plain gossip, D2, CHOCO, push-sum and RelaySum."""
    judges = {"D-SGD": _gossip, "D2": _d2, "CHOCO": _choco, "push-sum": _push_sum, "RelaySum": _relay_sum}
    return [Verdict(method, *judge(analysis)) for method, judge in judges.items()]


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
    margin = 1e-9 if analysis.nodes <= EXACT_NODES else LAST_WITHIN
    if analysis.ln <= D2_BOUND + margin:
        where = "is" if analysis.ln >= D2_BOUND - margin else "is below"
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


def _push_sum(analysis: Analysis) -> tuple[bool, str]:
    """Assran et al. 2019 (arXiv:1811.10792); a checked graph is strongly connected."""
    if analysis.mixing == "column-stochastic":
        return True, "the columns of the mixing matrix sum to 1 and every node reaches every other"
    return True, "nothing is gained: rows sum to 1 too, so its weights stay 1 and it is plain gossip"


def _relay_sum(analysis: Analysis) -> tuple[bool, str]:
    """Vogels et al. 2021 (arXiv:2110.04175)."""
    if analysis.period != 1 or analysis.mixing != "symmetric":
        return False, "it needs undirected links that are there in every round"
    surplus = analysis.edges - analysis.nodes + 1  # a checked graph is connected
    if surplus:
        return (
            False,
            f"it needs a tree, found {surplus} edge(s) more than one has: sums would count nodes twice; try tree",
        )
    return True, f"the graph is a tree; what a node says has reached all after {analysis.diameter} rounds"


def _words(analysis: Analysis) -> str:
    return analysis.mixing.replace("-", " ")

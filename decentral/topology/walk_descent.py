"""What repulsion is worth to SGD along a walk: the error of SA-SRRW on scalars, as measured and as theory has it.

Each node has f_i(x) = (x - b_i)^2 / 2, with b_i one number in one half of the graph and another in the other: as the
walk's slowest eigenvector cuts it, where a walk stays longest on one side. With visit t stepping with
beta_t = (t + 2)^-b and counting for gamma_t = (t + 2)^-a of all visits, theory says of a < b that

    E (x_t - x*)^2 / beta_t  ->  U / 2,    U = sum_{k >= 2} <b, u_k>^2 / (alpha (1 + l_k) + 1)^2 (1 + l_k) / (1 - l_k)

with l_k and u_k of `walk_analysis`, and U itself in place of U / 2 where b = 1: it falls as 1 / alpha^2.

Reference: Hu, Doshi and Eun 2024 (arXiv:2401.09665), case (i).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from decentral.topology import hops
from decentral.topology.chains import Chain
from decentral.topology.hops import Floats, Integers
from decentral.topology.walk_analysis import States
from decentral.topology.walks import key


@dataclass(frozen=True, eq=False)
class Descent:
    """Tokens of one walk, each alone on the graph.

    Args:
        alpha: how strongly visits repel.
        visits: `(C,)` after how many the errors were taken.
        errors: `(R, C)` (x - x*)^2 of each token.
        limit: `(C,)` what its mean tends to, as theory has it; None unless a < b.
    """

    alpha: float
    visits: Integers
    errors: Floats
    limit: Floats | None

    @property
    def mean(self) -> Floats:
        """`(C,)` over the tokens."""
        return np.asarray(self.errors.mean(axis=0))

    @property
    def doubt(self) -> Floats:
        """`(C,)` twice the standard error of the mean."""
        return np.asarray(2 * self.errors.std(axis=0, ddof=1) / len(self.errors) ** 0.5)


def descent(chain: Chain, a: float, b: float, marks: Sequence[int], tokens: int, seed: int) -> Descent:
    """Let tokens 0..tokens-1 walk.

    Args:
        chain: of the kernel srrw.
        a: below 1.
        b: at most 1.
        marks: ascending, from 1.
        tokens: 2 or more.
        seed: theirs.
    """
    at, pulls = np.array(marks, dtype=np.int64), halves(chain)
    errors = np.zeros((tokens, len(at)))
    arcs = (chain.starts, chain.neighbors, chain.widths, chain.log_rates)
    for token in range(tokens):
        hops.descend(chain.walk.alpha, a, b, *arcs, chain.log_target, pulls, key(seed, token), at, errors[token])
    limit = np.asarray((at + 1.0) ** -b * asymptotic(chain, pulls, b), dtype=np.float64) if a < b else None
    return Descent(chain.walk.alpha, at, errors, limit)


def halves(chain: Chain) -> Floats:
    """`(n,)` b_i: two values that differ by 2, by the sign of the slowest eigenvector; 0 in the mean by the target."""
    _, vectors = np.linalg.eigh(States.of(chain).symmetric.toarray())
    sides = np.where(vectors[:, -2] > 0, 1.0, -1.0)
    return np.asarray(sides - chain.target @ sides)


def asymptotic(chain: Chain, pulls: Floats, b: float) -> float:
    """What E (x_t - x*)^2 / beta_t tends to where a < b."""
    values, vectors = np.linalg.eigh(States.of(chain).symmetric.toarray())
    values, vectors = values[:-1], np.sqrt(chain.target)[:, None] * vectors[:, :-1]
    loads = (pulls @ vectors) ** 2 / (chain.walk.alpha * (1 + values) + 1) ** 2
    U = float((loads * (1 + values) / (1 - values)).sum())
    return U if b == 1 else U / 2

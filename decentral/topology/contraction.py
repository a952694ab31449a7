"""How fast gossip alone brings the nodes together: rho, the factor of their distance to the mean per turn.

With J = 11^T/n and P = W_T ... W_1 over a period:

    static, symmetric     rho = max(|l_2|, |l_n|), and t turns shrink the worst case by exactly rho^t
    doubly stochastic     rho = ||P - J||_2^(1/T); the count of turns is read from the products themselves
    drawn in each turn    rho^2 = the largest eigenvalue of E[W^T (I - J) W]: E||x - mean||^2 shrinks by at least that
    column-stochastic     rho = |l_2(P)|^(1/T), for the ratios of push-sum, in the long run
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import ceil, e, inf, log

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator

from decentral.topology.lanczos import NEGLIGIBLE
from decentral.topology.mixing import MixingMatrix
from decentral.topology.schedule import TopologySchedule
from decentral.topology.spectrum import Bound, largest_eigenvalue, largest_singular_value, second_modulus, spectrum
from decentral.topology.stochastic import Floats

SAMPLED_TURNS = 256
"""So many turns stand for a schedule that is drawn anew in each; fewer above 8,000 nodes."""

MULTIPLIED_NODES = 512
"""Up to here the turns of a schedule are multiplied out to count them."""

LONGEST = 40
"""Products of up to 2^40 periods are looked at."""

AT_LEAST = "; it converges so slowly that the gap may be smaller yet"

FRACTIONS = (1 / e, 1 / 2, 1 / 1000)


@dataclass(frozen=True)
class Contraction:
    """How fast disagreement shrinks in the worst case, from turn 0 on.

    `gap` is 1 - rho. `rounds` belong to `FRACTIONS`: the fewest turns after which no disagreement is larger than that
    share of what it was; infinite where rho is 1. `exact` says that they are counted; else they follow from rho.
    """

    gap: float
    rounds: tuple[float, ...]
    exact: bool
    meaning: str


def contraction_of(schedule: TopologySchedule, turns: Sequence[MixingMatrix], counted: bool = True) -> Contraction:
    """The contraction of a schedule whose turns, or a sample of them where they are drawn, are `turns`.

    Args:
        counted: whether to count rounds by products where that can be done, which takes a while.
    """
    if schedule.kind == "column-stochastic":
        rho = _root(second_modulus(product(turns)), len(turns))
        return _by_rate(rho, False, "the second largest modulus of an eigenvalue, per turn")
    if schedule.period is None:
        square, found = expected_square(turns)
        meaning = f"the root mean square factor per turn, estimated from {len(turns)} turns"
        return _by_rate(_root(square, 2), False, meaning + ("" if found else AT_LEAST))
    if len(turns) == 1 and schedule.kind == "symmetric":
        return _by_rate(1 - spectrum(turns[0]).gap, True, "the largest modulus of an eigenvalue beside 1")
    singular, found = largest_singular_value(product(turns), sum(turn.sparse.nnz for turn in turns))
    rho = _root(singular, len(turns))
    meaning = "the second singular value" + (
        f" of the product of {len(turns)} turns, per turn" if len(turns) > 1 else ""
    )
    if turns[0].n > MULTIPLIED_NODES or not counted:
        return _by_rate(rho, False, meaning + ("" if found else AT_LEAST))
    return Contraction(1 - rho, _multiplied(turns), True, meaning)


def turns_of(schedule: TopologySchedule) -> list[MixingMatrix]:
    """The matrices of a period; of a drawn schedule those of the first turns, `SAMPLED_TURNS` at most."""
    first = schedule.matrix(0)
    count = schedule.period or max(8, min(SAMPLED_TURNS, 2_000_000 // first.n))
    return [first, *(schedule.matrix(turn) for turn in range(1, count))]


def mean_of(turns: Sequence[MixingMatrix]) -> MixingMatrix:
    """The mean matrix of some turns."""
    return turns[0] if len(turns) == 1 else MixingMatrix(csr_array(sum(turn.sparse for turn in turns) / len(turns)))


def product(turns: Sequence[MixingMatrix]) -> LinearOperator:
    """x -> W_T ... W_1 (x - mean of x)."""
    matrices = [turn.sparse for turn in turns]

    def forward(x: Floats) -> Floats:
        return reduce(lambda before, matrix: matrix @ before, matrices, x - x.mean(axis=0))

    def backward(x: Floats) -> Floats:
        back = reduce(lambda before, matrix: matrix.T @ before, reversed(matrices), x)
        return np.asarray(back - back.mean(axis=0))

    return LinearOperator((turns[0].n,) * 2, matvec=forward, rmatvec=backward, matmat=forward, dtype=np.float64)


def expected_square(turns: Sequence[MixingMatrix]) -> Bound:
    """rho^2: the largest eigenvalue of the mean of W^T (I - J) W over some turns."""
    squares = csr_array(sum(turn.sparse.T @ turn.sparse for turn in turns) / len(turns))

    def forward(x: Floats) -> Floats:
        image = squares @ (x - x.mean(axis=0))
        return np.asarray(image - image.mean(axis=0))

    operator = LinearOperator(squares.shape, matvec=forward, matmat=forward, dtype=np.float64)
    return largest_eigenvalue(operator, int(squares.nnz))


def rounds_to(fraction: float, gap: float) -> float:
    """The fewest rounds t with (1 - gap)^t <= fraction: 1 where one round is an exact average, infinite at gap 0."""
    rho = 1 - gap
    if rho <= NEGLIGIBLE:
        return 1
    if gap <= NEGLIGIBLE:
        return inf
    return max(1, ceil(log(fraction) / log(rho) - 1e-9))


def _by_rate(rho: float, exact: bool, meaning: str) -> Contraction:
    return Contraction(1 - rho, tuple(rounds_to(fraction, 1 - rho) for fraction in FRACTIONS), exact, meaning)


def _root(value: float, degree: int) -> float:
    return float(value ** (1 / degree)) if value > NEGLIGIBLE else 0.0


def _multiplied(turns: Sequence[MixingMatrix]) -> tuple[float, ...]:
    """For each of `FRACTIONS` the first turn at which the product of all so far has no larger norm."""
    powers = [product(turns) @ np.eye(turns[0].n)]  # periods 1, 2, 4, ...
    while _norm(powers[-1]) > min(FRACTIONS) and len(powers) < LONGEST:
        powers.append(powers[-1] @ powers[-1])
    return tuple(_first_turn(turns, powers, fraction) for fraction in FRACTIONS)


def _first_turn(turns: Sequence[MixingMatrix], powers: Sequence[Floats], fraction: float) -> float:
    if _norm(powers[-1]) > fraction:
        return inf
    n = turns[0].n
    reached, count = np.eye(n) - 1 / n, 0
    for exponent in reversed(range(len(powers))):
        further = powers[exponent] @ reached
        if _norm(further) > fraction:
            reached, count = further, count + 2**exponent
    turn = count * len(turns)
    while _norm(reached) > fraction or turn == 0:
        reached, turn = turns[turn % len(turns)].sparse @ reached, turn + 1
    return turn


def _norm(A: Floats) -> float:
    """||A||_2, a hair below, so that a product that stands exactly at a fraction has reached it."""
    return float(np.linalg.norm(A, 2)) * (1 - 1e-9)

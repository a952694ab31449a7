"""What a walk is worth: how fast its law and its shares of visits approach the target.

The kernel P without memory is reversible: 1 = l_1 > l_2 >= ... >= l_n >= -1 are its eigenvalues, u_k the eigenvectors
of its symmetric form, scaled by sqrt(mu). The shares x_T of T visits obey a central limit theorem,

    T Cov(x_T) -> V = sum_{k >= 2} c_k (1 + l_k) / (1 - l_k) u_k u_k^T,

with c_k = 1 for P itself, 1 / (2 alpha (1 + l_k) + 1) for srrw and 1 / (2 alpha + 1) for hdt (see `walks`).
A non-backtracking walk is a chain on the arcs of the graph, and not reversible: its V comes from a linear system.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, inf, log, pi

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import coo_array, csr_array, diags_array
from scipy.sparse.linalg import eigsh

from decentral.topology import hops
from decentral.topology.chains import Chain
from decentral.topology.hops import Floats, Integers
from decentral.topology.walks import KERNELS

EXACT_NODES = 2000
"""Up to here the eigenvectors, hence V, are computed."""

EXACT_STATES = 800
"""Up to so many nodes, or arcs of a non-backtracking walk, powers of P and systems of that size are computed."""

NEGLIGIBLE = 1e-12
"""An eigenvalue so close to 1 in size is 1, and a residual so small is none."""

QUARTER = 1 / 4


@dataclass(frozen=True, eq=False)
class WalkAnalysis:
    """The numbers of a walk. Times are in visits.

    Args:
        gap: 1 - max(|l_2|, |l_n|) of the kernel without memory; None where it is not computed.
        mixing: the fewest hops after which the law of the kernel without memory is within 1/4 (total variation) of
            the target from wherever it started; infinite where it is periodic; None where it is not computed.
        mixing_exact: False: `mixing` is an upper bound, log(4 / min mu) / gap.
        covariance: `(n, n)` V; None where it is not computed.
        returns: `(n,)` expected visits from one visit of a node to its next, 1 / mu (Kac 1947).
    """

    gap: float | None
    mixing: float | None
    mixing_exact: bool
    covariance: Floats | None
    returns: Floats

    @property
    def variance(self) -> float | None:
        """Tr V: what T E|x_T - mu|^2 tends to, the asymptotic variance."""
        return None if self.covariance is None else float(np.trace(self.covariance))

    def distance(self, visits: int) -> float | None:
        """The mean total variation between the shares of so many visits and mu, as V and a normal law have it."""
        if self.covariance is None:
            return None
        return float(np.sqrt(np.clip(np.diag(self.covariance), 0, None) / (2 * pi * visits)).sum())


def analyze(chain: Chain) -> WalkAnalysis:
    """What can be computed of a walk on a graph of its size."""
    law = States.of(chain)
    gap = law.gap()
    exact = law.n <= EXACT_STATES
    mixing = law.mixing() if exact else None
    if mixing is None and gap is not None:
        mixing = inf if gap <= NEGLIGIBLE else float(ceil(log(4 / law.mu.min()) / gap))
    return WalkAnalysis(gap, mixing, exact, covariance(chain), 1 / chain.target)


def covariance(chain: Chain) -> Floats | None:
    """`(n, n)` V, what T Cov(x_T) tends to; None where the graph is too large, or where there is no such limit."""
    law = States.of(chain)
    if KERNELS[chain.walk.kernel].kind == hops.NON_BACKTRACKING:
        return law.arc_covariance() if law.n <= EXACT_STATES else None
    if law.n > EXACT_NODES:
        return None
    values, vectors = eigh(law.symmetric.toarray())
    values, vectors = np.clip(values[:-1], -1, 1), np.sqrt(chain.target)[:, None] * vectors[:, :-1]
    factors = memory_factors(chain, values) * (1 + values) / (1 - values)
    return np.asarray((vectors * factors) @ vectors.T)


def memory_factors(chain: Chain, eigenvalues: Floats) -> Floats:
    """c_k: what the memory leaves of the variance in the direction of each eigenvalue."""
    alpha = chain.walk.alpha
    match KERNELS[chain.walk.kernel].kind:
        case hops.SELF_REPELLENT:
            return np.asarray(1 / (2 * alpha * (1 + eigenvalues) + 1))
        case hops.HISTORY_DRIVEN:
            return np.full(len(eigenvalues), 1 / (2 * alpha + 1))
        case _:
            return np.ones(len(eigenvalues))


def transition(chain: Chain) -> csr_array:
    """`(n, n)` P of the kernel without memory, as a row for each node that is left."""
    rows = np.repeat(np.arange(chain.n), np.diff(chain.starts))
    strengths = np.bincount(rows, chain.widths, chain.n)
    going = chain.widths / strengths[rows] * np.exp(np.minimum(chain.log_rates, 0))
    own = 1 - np.bincount(rows, going, chain.n)
    nodes = np.arange(chain.n)
    ends = (np.concatenate([rows, nodes]), np.concatenate([chain.neighbors, nodes]))
    return csr_array(coo_array((np.concatenate([going, own]), ends), shape=(chain.n, chain.n)))


def kernel(chain: Chain, counts: Floats) -> Floats:
    """`(n, n)` K[x] at the counts x, for a graph of moderate size; P itself for a walk without memory."""
    P, alpha = transition(chain).toarray(), chain.walk.alpha
    excess = np.log(counts) - chain.log_target
    match KERNELS[chain.walk.kernel].kind:
        case hops.SELF_REPELLENT:
            weights = np.where(P > 0, -alpha * excess, -inf)
            weights = P * np.exp(weights - weights.max(axis=1, keepdims=True))
            return np.asarray(weights / weights.sum(axis=1, keepdims=True))
        case hops.HISTORY_DRIVEN:
            degrees = np.diff(chain.starts)
            rows = np.repeat(np.arange(chain.n), degrees)
            log_rates = chain.log_rates - alpha * (excess[chain.neighbors] - excess[rows])
            K = np.zeros((chain.n, chain.n))
            K[rows, chain.neighbors] = np.exp(np.minimum(log_rates, 0)) / degrees[rows]
            return np.asarray(K + np.diag(1 - K.sum(axis=1)))
        case _:
            return np.asarray(P)


@dataclass(frozen=True, eq=False)
class States:
    """The Markov chain of a walk without its memory, on nodes, or on arcs where the walk does not backtrack.

    Args:
        P: `(N, N)`.
        mu: `(N,)` its stationary law.
        node: `(N,)` where the walk is in each state.
        reversible: whether mu_i P_ij is symmetric.
    """

    P: csr_array
    mu: Floats
    node: Integers
    reversible: bool

    @classmethod
    def of(cls, chain: Chain) -> "States":
        """The chain that a walk is."""
        if KERNELS[chain.walk.kernel].kind == hops.NON_BACKTRACKING and len(chain.neighbors):
            arcs = len(chain.neighbors)
            return cls(_onward(chain), np.full(arcs, 1 / arcs), chain.neighbors, reversible=False)
        return cls(transition(chain), chain.target, np.arange(chain.n), reversible=True)

    @property
    def n(self) -> int:
        return len(self.mu)

    @cached_property
    def symmetric(self) -> csr_array:
        """D^1/2 P D^-1/2 for D = diag(mu), of the eigenvalues of P."""
        root = np.sqrt(self.mu)
        scaled = csr_array(diags_array(root) @ self.P @ diags_array(1 / root))
        return csr_array((scaled + scaled.T) / 2)

    def gap(self) -> float | None:
        """1 - the second largest modulus of an eigenvalue; 1 of a single state."""
        if self.n == 1:
            return 1.0
        if self.reversible and self.n > EXACT_NODES:
            start = np.random.default_rng(0).standard_normal(self.n)
            values = eigsh(self.symmetric, k=3, which="LM", v0=start, tol=1e-8, return_eigenvectors=False)
        elif self.reversible:
            values = np.linalg.eigvalsh(self.symmetric.toarray())
        elif self.n <= EXACT_STATES:
            values = np.linalg.eigvals(self.P.toarray())
        else:
            return None
        gap = 1 - float(np.sort(np.abs(values))[-2])
        return gap if gap > NEGLIGIBLE else 0.0

    def mixing(self) -> float:
        """The fewest hops t with total variation of at most 1/4 between each row of P^t and mu."""
        powers = [self.P.toarray()]
        while self._far(powers[-1]):
            if len(powers) > 40:
                return inf
            powers.append(powers[-1] @ powers[-1])
            powers[-1] /= powers[-1].sum(axis=1, keepdims=True)
        reached, law = 0, np.eye(self.n)
        for bit in reversed(range(len(powers))):
            further = law @ powers[bit]
            if self._far(further):
                reached, law = reached + 2**bit, further
        return float(reached + 1)

    def _far(self, law: Floats) -> bool:
        return bool(np.abs(law - self.mu).sum(axis=1).max() / 2 > QUARTER + NEGLIGIBLE)

    def arc_covariance(self) -> Floats | None:
        """V of the shares of nodes: with (I - P) G = F, F the centered indicators, <F, G> + <G, F> - <F, F>."""
        F = np.eye(self.node.max() + 1)[self.node]
        F -= self.mu @ F
        P = self.P.toarray()
        G = np.linalg.lstsq(np.eye(self.n) - P, F, rcond=NEGLIGIBLE)[0]
        if np.abs(G - P @ G - F).max() > 1e-8:  # it stays in a part of the arcs that sees nodes in other proportions
            return None
        cross = F.T @ (self.mu[:, None] * G)
        return np.asarray(cross + cross.T - F.T @ (self.mu[:, None] * F))


def _onward(chain: Chain) -> csr_array:
    """`(A, A)`: from the arc i -> j to j -> k, k other than i unless j is a dead end."""
    tails = np.repeat(np.arange(chain.n), np.diff(chain.starts))
    rows, columns, shares = [], [], []
    for arc, (i, j) in enumerate(zip(tails.tolist(), chain.neighbors.tolist(), strict=True)):
        out = np.arange(chain.starts[j], chain.starts[j + 1])
        onward = out[chain.neighbors[out] != i] if len(out) > 1 else out
        rows.append(np.full(len(onward), arc))
        columns.append(onward)
        shares.append(np.full(len(onward), 1 / len(onward)))
    ends = (np.concatenate(rows), np.concatenate(columns))
    return csr_array(coo_array((np.concatenate(shares), ends), shape=(len(tails),) * 2))


@dataclass(frozen=True, eq=False)
class Survey:
    """What many tokens of one walk did, each alone on the graph.

    Args:
        visits: `(R, n)` how often each token was at each node.
        marks: `(C,)` visits after which the distance was taken.
        distances: `(R, C)` total variation between the shares of visits until then and the target.
        cover: `(R,)` visits until every node had one; -1 where some had none at the end.
    """

    visits: Integers
    marks: Integers
    distances: Floats
    cover: Integers

    @property
    def covered(self) -> float:
        """The share of tokens that came everywhere."""
        return float((self.cover >= 0).mean())

    def cover_quantile(self, share: float) -> float | None:
        """Visits within which so large a share of the tokens had been everywhere; None: more than there were."""
        sought = np.where(self.cover < 0, inf, self.cover)
        found = float(np.quantile(sought, share, method="higher"))
        return found if found < inf else None


def survey(
    chain: Chain, visits: int, marks: Sequence[int], tokens: int, seed: int, target: Floats | None = None
) -> Survey:
    """Let tokens 0..tokens-1 make so many visits each, the start among them.

    Args:
        chain: the walk.
        visits: of each token, 1 or more.
        marks: ascending, from 1 to `visits`.
        tokens: how many.
        seed: theirs.
        target: `(n,)` what the distances are to; the walk's own unless given.
    """
    to = chain.target if target is None else target
    at = np.array(marks, dtype=np.int64)
    counts, distances = np.zeros((tokens, chain.n), dtype=np.int64), np.zeros((tokens, len(at)))
    cover = [
        hops.survey(chain.path(seed, token, visits), to, at, counts[token], distances[token]) for token in range(tokens)
    ]
    return Survey(counts, at, distances, np.array(cover))


def logarithmic_marks(visits: int, count: int = 60) -> list[int]:
    """About `count` numbers from 1 to `visits`, evenly spaced on a log axis; `visits` and its tenths among them."""
    tenths = {visits // 10**k for k in range(len(str(visits)))}
    return sorted({round(visits ** (step / max(1, count - 1))) for step in range(count)} | tenths)

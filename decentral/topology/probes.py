"""The variance of the random walk of n_W from random vectors carried through the turns: large graphs over time.

The walk's mean variance is sum_k gamma^k m_k, where m_k = ||W_{s+k} ... W_s||_F^2 / n is the mean over the turns s to
start with. A random vector z of signs has E ||A z||^2 = ||A||_F^2 (Hutchinson 1990), and the mean of z, which every
turn keeps, adds exactly 1/n. So m_k is read from vectors that only ever meet W times a vector.
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from decentral.topology.quadrature import Variance
from decentral.topology.stochastic import Floats

PROBED_ENTRIES = 16_384
"""So many entries the random vectors have together, at least."""

WORK = 3_000_000_000
"""Multiplications that carrying may take."""

MOST_TURNS = 20_000

STARTS = 32
"""Turns of the schedule to start with, at most."""

SETTLED = 1e-6
"""Below this share of 1/n what is left of the vectors no longer matters."""

UNCERTAIN = 0.01
"""How much of the variance may rest on turns beyond those carried."""


def carried(turns: Sequence[csr_array], drawn: bool) -> tuple[Variance, str, float]:
    """The walk's mean variance, how it was found, and up to which gamma it can be trusted."""
    n, starts = int(turns[0].shape[0]), range(0, len(turns), max(1, len(turns) // STARTS))
    probes = max(4, -(-PROBED_ENTRIES // (n * len(starts))))
    vectors = np.random.default_rng(0).choice([-1.0, 1.0], size=(len(starts), n, probes))
    vectors -= vectors.mean(axis=1, keepdims=True)
    steps = int(min(MOST_TURNS, max(50, WORK // (turns[0].nnz * probes * len(starts)))))
    moments: list[Floats] = []  # each (starts * probes,): |A z|^2 / n, less the 1/n of the mean
    for step in range(steps):
        for at, first in enumerate(starts):
            vectors[at] = turns[(first + step) % len(turns)] @ vectors[at]
        moments.append(np.einsum("snp,snp->sp", vectors, vectors).ravel() / n)
        if moments[-1].mean() * n < SETTLED:
            break
    by_probe = np.array(moments)
    return _summed(by_probe, n), _said(by_probe, n, drawn, len(turns)), _largest_gamma(by_probe, n)


def _summed(moments: Floats, n: int) -> Variance:
    means, powers = moments.mean(axis=1), np.arange(len(moments))

    def variance(gamma: float) -> tuple[float, float | None]:
        return float(1 / (n * (1 - gamma)) + means @ gamma**powers), None

    return variance


def _said(moments: Floats, n: int, drawn: bool, turns: int) -> str:
    each = 0.9 ** np.arange(len(moments)) @ moments
    error = float(each.std(ddof=1) / len(each) ** 0.5) / (10 / n + each.mean())
    sampled = f", over {turns} sampled turns" if drawn else ""
    return (
        f"n_W from {len(each)} random vectors carried through {len(moments)} turns{sampled} (standard error "
        f"{100 * error:.1g} % at gamma 0.9); not known of single nodes"
    )


def _largest_gamma(moments: Floats, n: int) -> float:
    """Up to where what lies beyond the turns carried, if it shrank no more, is `UNCERTAIN` of the variance."""
    means, count = moments.mean(axis=1), len(moments)
    if means[-1] * n < SETTLED:
        return 1.0
    gammas = 1 - np.logspace(0, -9, 400)
    sums = np.array([means @ gamma ** np.arange(count) for gamma in gammas]) + 1 / (n * (1 - gammas))
    beyond = gammas**count * means[-1] / (1 - gammas)
    return float(gammas[beyond <= UNCERTAIN * sums].max())

"""Oracles of the centralized compressed methods, from the equations of their papers.

As in `oracle`: X is (n, d) with one row per node, here all equal, and `grad(X)` is asked once in every round. What a
compressor makes of each row comes from the plain NumPy references of the compressors' own battery.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from decentral.compression import Key, Space, compressor_of
from decentral.seeding import integer_seed
from tests.compression.reference import decoded
from tests.contract.oracle import Equations, Gradients, Matrix, Sgd

Compress = Callable[[Matrix, int], Matrix]
"""C(V, k): of each node's row, with the draws of round k."""


def coded(named: Any, purpose: str = "") -> Compress:
    """As the compressor of that name does at a node, under seed 0; of a second one in a round, with its purpose."""
    seed = integer_seed(0, 0, purpose) if purpose else 0

    def compress(V: Matrix, k: int) -> Matrix:
        compressor = compressor_of(named, Space(V.shape[1], torch.float64))
        return np.stack([decoded(compressor, row, Key(seed, k, node)) for node, row in enumerate(V)])

    return compress


def ef14(C: Compress) -> Equations:
    """P = E + lr G, E+ = P - C(P), x+ = x - mean C(P)."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        E = np.zeros_like(X)
        for k in range(rounds):
            P = E + sgd.step(grad(X), at=X)
            M = C(P, k)
            E, X = P - M, X - M.mean(axis=0)
        return X

    return equations


def ef21_sgdm(C: Compress, beta: float = 0.0, double: bool = False) -> Equations:
    """g_i = C(v_i), v_i the first gradient; then x+ = x - lr mean g_i, then g_i+ = g_i + C(v_i+ - g_i)."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        V = U = grad(X)
        G = C(V, 0)
        for k in range(1, rounds + 1):
            X = X - sgd.step(np.broadcast_to(G.mean(axis=0), G.shape), at=X)
            if k == rounds:
                break
            V = beta * V + (1 - beta) * grad(X)
            U = beta * U + (1 - beta) * V if double else V
            G = G + C(U - G, k)
        return X

    return equations


def econtrol(C: Compress, kappa: float) -> Equations:
    """As in the paper, with E in units of gradients: what is still to be applied, divided by the present rate."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        E = H = np.zeros_like(X)
        for k in range(rounds):
            G, lr = grad(X) + sgd.weight_decay * X, sgd.rate(k)
            E = E * (sgd.rate(k - 1) / lr)
            D = C(kappa * E + G - H, k)
            E, H = E + G - H - D, H + D
            X = X - lr * H.mean(axis=0)
        return X

    return equations


def diana(Q: Compress, alpha: float) -> Equations:
    """D = Q(G - H), x+ = x - lr (mean H + mean D), H+ = H + alpha D; alpha = 0 is D-QSGD."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        H = np.zeros_like(X)
        for k in range(rounds):
            D = Q(grad(X) - H, k)
            X = X - sgd.step(np.broadcast_to((H + D).mean(axis=0), X.shape), at=X)
            H = H + alpha * D
        return X

    return equations


def ec_sgd_diana(C: Compress, Q: Compress, alpha: float) -> Equations:
    """G = Ghat - H + mean H through EF14, and H+ = H + alpha Q(Ghat - H) with draws of its own."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        E = H = np.zeros_like(X)
        for k in range(rounds):
            Ghat = grad(X)
            P = E + sgd.step(Ghat - H + H.mean(axis=0), at=X)
            M = C(P, k)
            E, X = P - M, X - M.mean(axis=0)
            H = H + alpha * Q(Ghat - H, k)
        return X

    return equations

"""What each method over compressed messages must compute, as `oracle`: stacked rows, and W X written as W @ X."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from decentral.compression import Key, Space, compressor_of
from tests.compression import reference
from tests.contract.oracle import Equations, Gradients, Matrix, Sgd

Compression = Callable[[Matrix], Matrix]
"""C of each row of (n, d)."""


def everything(U: Matrix) -> Matrix:
    return U


def largest(k: int) -> Compression:
    """The k numbers of largest magnitude of each row."""

    def compression(U: Matrix) -> Matrix:
        out = np.zeros_like(U)
        kept = np.argsort(-np.abs(U), axis=1)[:, :k]
        np.put_along_axis(out, kept, np.take_along_axis(U, kept, axis=1), axis=1)
        return out

    return compression


def choco(order: str, gamma: float, C: Compression) -> Equations:
    """H+ = H + C(Y - H) and X+ = Y' + gamma (W H+ - H+), where Y and Y' are X - lr g; behind the gradient Y is X."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        H = X.copy()
        for k in range(rounds):
            moved = X - sgd.step(grad(X), at=X)
            if (k + 1) % every:
                X = moved
                continue
            H = H + C((X if order == "adapt-while-communicate" else moved) - H)
            X = moved + gamma * (W @ H - H)
        return X

    return equations


Coded = Callable[[Matrix, int, int], Matrix]
"""C of each row of (n, d) in round k, as the first or the second message that a node sends in it."""


def referenced(section: Any) -> Coded:
    """A compressor by what NumPy makes of its file's equations; not low rank, which remembers."""

    def compression(U: Matrix, k: int, message: int = 0) -> Matrix:
        compressor = compressor_of(section, Space(U.shape[1], torch.float64))
        return np.stack([reference.decoded(compressor, u, Key(0, k, node, message)) for node, u in enumerate(U)])

    return compression


def lead(C: Coded, gamma: float, alpha: float) -> Equations:
    """With H_w = W H kept beside H, as the paper has it."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        H, H_w, D = X, W @ X, np.zeros_like(X)
        for k in range(rounds):
            G, lr = grad(X) + sgd.weight_decay * X, sgd.rate(k)
            Q = C(X - lr * G - lr * D - H, k, 0)
            Y, Y_w = H + Q, H_w + W @ Q
            H, H_w = (1 - alpha) * H + alpha * Y, (1 - alpha) * H_w + alpha * Y_w
            D = D + gamma / (2 * lr) * (Y - Y_w)
            X = X - lr * G - lr * D
        return X

    return equations


def motef(C: Coded, gamma: float, lam: float) -> Equations:
    """V+ = V + gamma (W - I) G + M+ - M, from V = M = g, H = X and G = C(V); lam = 1 is BEER."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        L, H, G = W - np.eye(len(W)), X, np.zeros_like(X)
        M = V = grad(X)
        for k in range(rounds):
            # What is new of V goes out in the next round.
            G = G + C(V - G, k + 1, 1)
            X = X + gamma * L @ H - sgd.step(V, at=X)
            H = H + C(X - H, k + 1, 0)
            if k + 1 < rounds:
                older, M = M, (1 - lam) * M + lam * grad(X)
                V = V + gamma * L @ G + M - older
        return X

    return equations


def deepsqueeze(C: Coded, gamma: float) -> Equations:
    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        E = np.zeros_like(X)
        for k in range(rounds):
            half = X - sgd.step(grad(X), at=X)
            sent = C(half + E, k, 0)
            E = half + E - sent
            X = half + gamma * (W - np.eye(len(W))) @ sent
        return X

    return equations


def dcd(C: Coded) -> Equations:
    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        for k in range(rounds):
            X = X + C(W @ X - sgd.step(grad(X), at=X) - X, k, 0)
        return X

    return equations


def ecd(C: Coded) -> Equations:
    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        estimate = X
        for k in range(rounds):
            t, new = k + 1, W @ estimate - sgd.step(grad(X), at=X)
            Z = (1 - t / 2) * X + t / 2 * new
            estimate, X = (1 - 2 / t) * estimate + 2 / t * C(Z, k, 0), new
        return X

    return equations

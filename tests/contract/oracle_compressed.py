"""What each method over compressed messages must compute, as `oracle`: stacked rows, and W X written as W @ X."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from decentral.compression import Key, Space, compressor_of
from decentral.peer import Layout
from decentral.seeding import stream
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
            X = half + gamma * (W @ sent - sent)
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


def power_gossip(rank: int, iterations: int, s: float, layout: Layout) -> Equations:
    """D = M_j - M_i, P = D Q, M_i += s w_ij P Q^T, M_j -= s w_ij P Q^T; and with P of the transposed next."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        edges = [(int(i), int(j)) for i, j in np.argwhere(np.triu(W, 1))]
        drawn = {(i, j): iter(stream(0, -1, f"power gossip {i}-{j} 0").standard_normal(10**3)) for i, j in edges}
        known: dict[tuple[int, int, str], Matrix] = {}
        for turn in range(rounds * iterations):
            if turn % iterations == 0:
                X = X - sgd.step(grad(X), at=X)
            before, X = X, X.copy()
            for block in layout:
                place = slice(block.start, block.start + int(np.prod(block.shape)))
                if len(block.shape) < 2:
                    X[:, place] += s * (W @ before - before)[:, place] * (turn % iterations == 0)
                    continue
                M = before[:, place].reshape(len(X), block.shape[0], -1)
                r = min(rank, *M.shape[1:])
                for i, j in edges:
                    if turn == 0:
                        known[i, j, block.name] = np.array([next(drawn[i, j]) for _ in range(r * M.shape[2])])
                        known[i, j, block.name] = known[i, j, block.name].reshape(r, -1).T
                    D = (M[j] - M[i]).T if turn % 2 else M[j] - M[i]
                    Q = np.linalg.qr(known[i, j, block.name])[0]
                    known[i, j, block.name] = P = D @ Q
                    moved = s * W[i, j] * ((Q @ P.T) if turn % 2 else (P @ Q.T)).reshape(-1)
                    X[i, place] += moved
                    X[j, place] -= moved
        return X

    return equations

"""What each method over compressed messages must compute, as `oracle`: stacked rows, and W X written as W @ X."""

from collections.abc import Callable

import numpy as np

from decentral.peer import Layout
from decentral.seeding import stream
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

"""What each method over compressed messages must compute, as `oracle`: stacked rows, and W X written as W @ X."""

from collections.abc import Callable

import numpy as np

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

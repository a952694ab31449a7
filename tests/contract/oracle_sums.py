"""Oracles of push-sum and RelaySum, from other forms of their equations than the code's: none of them sends anything.

As in `oracle`: X is (n, d) with one row per node, and `grad(X)` is asked once in every round, at the rows of X.
"""

import networkx as nx
import numpy as np

from tests.contract.oracle import Equations, Gradients, Matrix, Sgd


def push(delay: int = 0) -> Equations:
    """U and w are kept as they are, and those of each round for ever; what is not a node's own comes `delay` late."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        U, w, told = X, np.ones((len(X), 1)), []
        own = np.diag(np.diag(W))
        for k in range(rounds):
            U = U - sgd.step(grad(U / w), at=U / w)
            told.append((U, w))
            late = told[k - delay] if k >= delay else (0 * U, 0 * w)
            U, w = own @ U + (W - own) @ late[0], own @ w + (W - own) @ late[1]
        return U / w

    return equations


def relay(form: str, *more: Matrix) -> Equations:
    """By distances: a node that is D links away is heard with what it had D - 1 rounds before, once that has been.

    Each of the trees, W's and those of `more`, has its part of the columns.
    """

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        start, told = X, []
        trees = [ages(tree) for tree in (W, *more)]
        parts = np.array_split(np.arange(X.shape[1]), len(trees))
        for _ in range(rounds):
            S = sgd.step(grad(X), at=X)
            told.append(-S if form == "updates" else X - S)
            X = np.concatenate(
                [_relayed(form, age, told, X, start)[:, part] for age, part in zip(trees, parts, strict=True)], axis=1
            )
        return X

    return equations


def _relayed(form: str, age: Matrix, told: list[Matrix], X: Matrix, start: Matrix) -> Matrix:
    n, k, rows = len(X), len(told) - 1, []
    for i in range(n):
        heard = [told[k - int(age[i, j])][j] for j in range(n) if age[i, j] <= k]
        missing = n - len(heard)
        rows.append(
            {
                "arrived": sum(heard) / len(heard),
                "own": (sum(heard) + missing * told[k][i]) / n,
                "start": (sum(heard) + missing * start[i]) / n,
                "updates": X[i] + sum(heard) / n,
            }[form]
        )
    return np.stack(rows)


def ages(W: Matrix) -> Matrix:
    """(n, n): how many rounds old what i hears of j is; 0 of itself and of its neighbors."""
    distances = dict(nx.all_pairs_shortest_path_length(nx.from_numpy_array(W)))
    return np.array([[max(distances[i][j] - 1, 0) for j in range(len(W))] for i in range(len(W))])

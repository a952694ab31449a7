"""Oracles of asynchronous methods: D-SGD with delays, and what stays of pairs that average in some order."""

import numpy as np

from tests.contract.oracle import Equations, Gradients, Matrix, Sgd


def delayed(tau: int, of: str) -> Equations:
    """All models are kept for ever, and those of `tau` rounds before are looked up."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        told, own = [X], np.diag(np.diag(W))
        for k in range(rounds):
            late = told[max(k - tau, 0)]
            mixed = own @ X + (W - own) @ late if of == "models" else W @ X
            X = mixed - sgd.step(grad(late if of == "gradients" else X), at=X)
            told.append(X)
        return X

    return equations

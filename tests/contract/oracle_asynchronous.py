"""Oracle of D-SGD with delays, as in `oracle`: `grad` is asked once in every round, before anything is mixed."""

import numpy as np

from tests.contract.oracle import Equations, Gradients, Matrix, Sgd


def delayed(tau: int, of: str) -> Equations:
    """All models are kept for ever, and those of `tau` rounds before are looked up."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        told = [X]
        for k in range(rounds):
            late = told[max(k - tau, 0)]
            G = grad(late if of == "gradients" else X)
            own = np.diag(np.diag(W @ np.eye(len(W))))  # of this round, where W changes
            mixed = own @ X + W @ late - own @ late if of == "models" else W @ X
            X = mixed - sgd.step(G, at=X)
            told.append(X)
        return X

    return equations

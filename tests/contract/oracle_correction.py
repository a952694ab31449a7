"""Oracles of the methods with momentum over the graph and of bias correction, from the equations of their papers.

As in `oracle`: X is (n, d) with one row per node, and `grad(X)` is asked once in every round, at the rows of X.
"""

import numpy as np

from tests.contract.oracle import Equations, Gradients, Matrix, Sgd


def tracking(order: str) -> Equations:
    """y+ = W y + g+ - g, with the first y the first g; adapt-then-combine mixes all of y, from y = g = 0 before."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        Y = before = np.zeros_like(X)
        for k in range(rounds):
            G = grad(X)
            Y = W @ (Y + G - before) if order == "adapt-then-combine" else (W @ Y + G - before if k else G)
            step = sgd.step(Y, at=X)
            X = W @ X - step if order == "adapt-while-communicate" else W @ (X - step)
            before = G
        return X

    return equations


def d2(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
    """x1 = W (x0 - s0), x+ = W (2 x - x- - s + s-), with s the step that is taken, at its own round's rate."""
    older, S_older = X, sgd.step(grad(X), at=X)
    X = W @ (X - S_older)
    for _ in range(rounds - 1):
        S = sgd.step(grad(X), at=X)
        X, older, S_older = W @ (2 * X - older - S + S_older), X, S
    return X


def exact_diffusion(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
    """psi+ = x - s, phi = psi+ + x - psi, x+ = (I + W)/2 phi, from psi = x."""
    half, psi = (np.eye(len(W)) + W) / 2, X
    for _ in range(rounds):
        adapted = X - sgd.step(grad(X), at=X)
        X, psi = half @ (adapted + X - psi), adapted
    return X


def quasi_global_momentum(beta: float, mu: float, nesterov: bool) -> Equations:
    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        M = np.zeros_like(X)
        for k in range(rounds):
            G, lr = grad(X) + sgd.weight_decay * X, sgd.rate(k)
            local = beta * M + G
            mixed = W @ (X - lr * (G + beta * local if nesterov else local))
            M = mu * M + (1 - mu) * (X - mixed) / lr
            X = mixed
        return X

    return equations


def quasi_global_adam(beta1: float, beta2: float, epsilon: float, variant: str) -> Equations:
    """With one block of one dimension, whose norm is that of the whole gradient."""

    def unit(V: Matrix) -> Matrix:
        return V / (np.linalg.norm(V, axis=1, keepdims=True) + 1e-8)

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        first, second = np.zeros_like(X), np.zeros_like(X)
        for k in range(rounds):
            G = grad(X)
            G = (unit(G) if variant == "normalized" else G) + sgd.weight_decay * X
            m = beta1 * first + (1.0 if variant == "sum" else 1 - beta1) * G
            v = beta2 * second + (1 - beta2) * G**2
            scale = np.sqrt(v) / np.sqrt(1 - beta2 ** (k + 1)) + epsilon
            mixed = W @ (X - sgd.rate(k) / (1 - beta1 ** (k + 1)) * m / scale)
            change, X = unit(X - mixed), mixed
            first = m if variant == "local" else beta1 * first + (1 - beta1) * change
            second = beta2 * second + (1 - beta2) * change**2
        return X

    return equations


def decentlam(beta: float) -> Equations:
    """gt = (x - W (x - lr g)) / lr, m = beta m + gt, x+ = x - lr m."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        M = np.zeros_like(X)
        for k in range(rounds):
            G, lr = grad(X) + sgd.weight_decay * X, sgd.rate(k)
            M = beta * M + (X - W @ (X - lr * G)) / lr
            X = X - lr * M
        return X

    return equations


def slowmo(tau: int, beta: float, alpha: float, gossip: bool = True, exact: bool = True) -> Equations:
    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        n = len(X)
        U, anchor = np.zeros_like(X), X
        for k in range(rounds):
            X = (W if gossip else np.eye(n)) @ (X - sgd.step(grad(X), at=X))
            if (k + 1) % tau == 0:
                mean = np.full((n, n), 1 / n) @ X if exact else X
                U = beta * U + (anchor - mean) / sgd.rate(k)
                X = anchor = anchor - alpha * sgd.rate(k) * U
        return X

    return equations


def momentum_tracking(beta: float) -> Equations:
    """u = beta u + g, x+ = W x - lr (u - c), c+ = W (c - u) + u, from u = c = 0."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        U = C = np.zeros_like(X)
        for k in range(rounds):
            U = beta * U + grad(X) + sgd.weight_decay * X
            X = W @ X - sgd.rate(k) * (U - C)
            C = W @ (C - U) + U
        return X

    return equations


def global_update_tracking(mu: float) -> Equations:
    """As the authors have it, with y and delta, each of them divided by the rate of its own round."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        Y = delta = drift = np.zeros_like(X)
        for k in range(rounds):
            mixed, lr = W @ X, sgd.rate(k)
            carried = mu * (W @ Y - drift - delta)
            drift = (mixed - X) / lr
            delta = grad(mixed) + sgd.weight_decay * mixed - drift
            Y = delta + carried
            X = X - lr * Y
        return X

    return equations

"""Oracles of the methods that communicate seldom or little, from the equations of their papers, as in `oracle`."""

from collections.abc import Callable

import numpy as np

from decentral.compression import Key
from decentral.compression.random_k import random_places
from decentral.topology.topology import Topology
from tests.contract.oracle import Equations, Gradients, Matrix, Sgd
from tests.contract.oracle_compressed import Compression


def fedavg(tau: int) -> Equations:
    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        for k in range(rounds):
            X = X - sgd.step(grad(X), at=X)
            if (k + 1) % tau == 0:
                X = np.tile(X.mean(axis=0), (len(X), 1))
        return X

    return equations


def diloco(H: int, gamma: float, beta: float) -> Equations:
    """torch's SGD with Nesterov momentum on the one model z, whose gradient is z - mean(x)."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        outer, z = Sgd(lr=gamma, momentum=beta, nesterov=True), X[:1]
        for k in range(rounds):
            X = X - sgd.step(grad(X), at=X)
            if (k + 1) % H == 0:
                z = z - outer.step(z - X.mean(axis=0, keepdims=True), at=z)
                X = np.repeat(z, len(X), axis=0)
        return X

    return equations


def gasloc(H: int, lr: float, gamma: float, mixed: bool) -> Equations:
    """Theta+ = W Y + gamma (Y - Y before), Y = Theta + lr G; or of W Y."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        Theta = before = X
        for k in range(rounds):
            X = X - sgd.step(grad(X), at=X)
            if (k + 1) % H == 0:
                Y = Theta + lr * (X - Theta)
                of = W @ Y if mixed else Y
                X = Theta = W @ Y + gamma * (of - before)
                before = of
        return X

    return equations


def noloco(H: int, beta: float, alpha: float, gamma: float) -> Equations:
    """With the two sums that the paper has, of the drifts and of the models before."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        Phi, M = X, np.zeros_like(X)
        for k in range(rounds):
            X = X - sgd.step(grad(X), at=X)
            if (k + 1) % H == 0:
                M = alpha * M + beta * (W @ (X - Phi)) + gamma * (W @ Phi - Phi)
                X = Phi = Phi + M
        return X

    return equations


def sparta(p: float, order: str) -> Equations:
    """With a mask M of 0 and 1 over the vector: X+ = Y + (W Y - Y) M, and Y = X - lr g(X); or the mixing of X."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        d = X.shape[1]
        for k in range(rounds):
            mask = np.isin(np.arange(d), random_places(d, max(1, int(p * d)), Key(0, k, 0).shared))
            moved = X - sgd.step(grad(X), at=X)
            of = X if order == "adapt-while-communicate" else moved
            X = moved + (W @ of - of) * mask
        return X

    return equations


def epidemic(topology: Callable[[int], Topology]) -> Equations:
    """X+ = R (X - lr g(X)), R the recipients of each turn, rows scaled to sum to 1; W is of the first turn alone."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        schedule = topology(len(X)).schedule
        for k in range(rounds):
            heard = (schedule.matrix(k).dense() > 0).astype(float)
            X = heard / heard.sum(axis=1, keepdims=True) @ (X - sgd.step(grad(X), at=X))
        return X

    return equations


def sparseloco(H: int, alpha: float, beta: float, gamma: float, C: Compression) -> Equations:
    """E = beta E + Z - X, D = C(E), E - D is kept, Z+ = Z - alpha W D + gamma (W - I) K, K the public copies of Z."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        Z, E, K = X, np.zeros_like(X), X
        for k in range(rounds):
            X = X - sgd.step(grad(X), at=X)
            if (k + 1) % H == 0:
                E = beta * E + Z - X
                D = C(E)
                E, K = E - D, K + C(Z - K)
                X = Z = Z - alpha * W @ D + gamma * (W @ K - K)
        return X

    return equations

"""What each method must compute, straight from its equations: numpy, float64, X is (n, d) with one row per node.

`grad(X)` returns the (n, d) gradients of the nodes, each at its own row, and is asked once in every round. W is the
(n, n) mixing matrix, row i = the weights that node i applies. Round k mixes when (k + 1) mod every = 0; else W is I.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Gradients = Callable[[Matrix], Matrix]


@dataclass(kw_only=True)
class Sgd:
    """torch's SGD on stacked rows: g <- g + decay x, m <- momentum m + g from m = 0, and the direction
    is m, or g + momentum m with nesterov.

    Attributes:
        drop: the round from which on the learning rate is a tenth of lr; None: it stays.
    """

    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    drop: int | None = None
    memory: Matrix | float = 0.0
    steps: int = 0

    def rate(self, k: int) -> float:
        """The learning rate of round k."""
        return self.lr if self.drop is None or k < self.drop else self.lr / 10

    def step(self, grads: Matrix, at: Matrix) -> Matrix:
        """What is subtracted from the models, for gradients taken at the point `at`."""
        self.memory = self.momentum * self.memory + grads + self.weight_decay * at
        self.steps += 1
        ahead = grads + self.weight_decay * at + self.momentum * self.memory
        return self.rate(self.steps - 1) * (ahead if self.nesterov else self.memory)


class Equations(Protocol):
    """A method's update, for some rounds from X."""

    def __call__(self, X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix: ...


def mixing(W: Matrix, k: int, every: int) -> Matrix:
    """The matrix of round k."""
    return W if (k + 1) % every == 0 else np.eye(len(W))


def adapt_then_combine(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
    """X+ = W (X - lr g(X))."""
    for k in range(rounds):
        X = mixing(W, k, every) @ (X - sgd.step(grad(X), at=X))
    return X


def combine_then_adapt(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
    """Z = W X and X+ = Z - lr g(Z)."""
    for k in range(rounds):
        Z = mixing(W, k, every) @ X
        X = Z - sgd.step(grad(Z), at=Z)
    return X


def adapt_while_communicate(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
    """X+ = W X - lr g(X): gradient and weight decay are taken at X, before the mixing."""
    for k in range(rounds):
        X = mixing(W, k, every) @ X - sgd.step(grad(X), at=X)
    return X


def hierarchical(inner: Equations, size: int) -> Equations:
    """D-SGD on the graph of groups, whose W this is given: each group's gradient is the mean of its members'."""

    def equations(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
        def of_groups(Y: Matrix) -> Matrix:
            return grad(np.repeat(Y, size, axis=0)).reshape(len(Y), size, -1).mean(axis=1)

        return np.repeat(inner(X[::size], W, of_groups, sgd, rounds, every), size, axis=0)

    return equations


def allreduce(X: Matrix, W: Matrix, grad: Gradients, sgd: Sgd, rounds: int, every: int = 1) -> Matrix:
    """X+ = X - lr J g(X) with J = 11^T / n in place of W; there are no local steps."""
    J = np.full((len(X), len(X)), 1 / len(X))
    for _ in range(rounds):
        X = X - sgd.step(J @ grad(X), at=X)
    return X

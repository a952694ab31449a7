"""What each token method must compute, straight from its equations: numpy, float64, one visit after the other.

`grad(i, x)` is node i's next minibatch gradient at x: `(d,)`. A path is the node of each visit.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from decentral.topology.chains import Chain
from decentral.topology.walks import uniform

Vector = NDArray[np.float64]
Gradient = Callable[[int, Vector], Vector]


def forgetful_path(chain: Chain, seed: int, token: int, visits: int, a: float) -> list[int]:
    """The path of a walk that forgets: x+ = x + (t + 2)^-a (e_i - x) at visit t, from x = mu."""
    x, node, path = chain.target.copy(), int(uniform(seed, token, 0) * chain.n), []
    for t in range(visits):
        path.append(node)
        x = x + (t + 2) ** -a * (np.eye(chain.n)[node] - x)
        around = chain.surroundings(node)
        node = around.next_node(uniform(seed, token, t + 1), x[around.whose])
    return path


def mcgd(x: Vector, path: Sequence[int], grad: Gradient, lr: float, q: float = 0.0, decay: float = 0.0) -> Vector:
    for t, i in enumerate(path):
        x = x - lr * (t + 2) ** -q * (grad(i, x) + decay * x)
    return x


def heavy_ball(x: Vector, path: Sequence[int], grad: Gradient, lr: float, q: float, beta: float) -> Vector:
    m = np.zeros_like(x)
    for t, i in enumerate(path):
        m = beta * m + grad(i, x)
        x = x - lr * (t + 2) ** -q * m
    return x


def adam(x: Vector, path: Sequence[int], grad: Gradient, lr: float, q: float, betas: tuple[float, float]) -> Vector:
    m, v = np.zeros_like(x), np.zeros_like(x)
    for t, i in enumerate(path):
        g = grad(i, x)
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g**2
        m_hat, v_hat = m / (1 - betas[0] ** (t + 1)), v / (1 - betas[1] ** (t + 1))
        x = x - lr * (t + 2) ** -q * m_hat / (np.sqrt(v_hat) + 1e-8)
    return x


def walkman(x: Vector, path: Sequence[int], grad: Gradient, lr: float, nodes: int) -> Vector:
    y, z = np.repeat(x[None], nodes, 0), np.zeros((nodes, len(x)))
    for i in path:
        before = y[i] - z[i]
        y[i] = x + z[i] - lr * grad(i, y[i])
        z[i] = z[i] + x - y[i]
        x = x + (y[i] - z[i] - before) / nodes
    return x


def proximal_walkman(
    x: Vector, path: Sequence[int], proximal: Callable[[int, Vector, float], Vector], lr: float, nodes: int
) -> Vector:
    """With the exact `proximal(i, c, lr)` = argmin_y f_i(y) + |y - c|^2 / (2 lr)."""
    y, z = np.repeat(x[None], nodes, 0), np.zeros((nodes, len(x)))
    for i in path:
        before = y[i] - z[i]
        y[i] = proximal(i, x + z[i], lr)
        z[i] = z[i] + x - y[i]
        x = x + (y[i] - z[i] - before) / nodes
    return x


def several(x: Vector, paths: NDArray[np.int64], grad: Gradient, lr: float, merge: bool) -> NDArray[np.float64]:
    """Tokens that make one visit a round each, in order of their numbers; those at one node may take their mean first.

    Args:
        paths: `(K, T + 1)`, where each token is before each round, and at last.
    """
    X = np.repeat(x[None], len(paths), 0)
    for at in paths.T[:-1]:
        for node in set(at.tolist()) if merge else ():
            X[at == node] = X[at == node].mean(0)
        for k, i in enumerate(at):
            X[k] = X[k] - lr * grad(int(i), X[k])
    return X


def token_gossip(
    x: Vector, paths: NDArray[np.int64], grad: Gradient, lr: float, pull: float, nodes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The models of nodes and tokens."""
    X, Z = np.repeat(x[None], nodes, 0), np.repeat(x[None], len(paths), 0)
    for at in paths.T[:-1]:
        X = np.stack([X[i] - lr * grad(i, X[i]) for i in range(nodes)])
        for k, i in enumerate(at):
            d = X[i] - Z[k]
            X[i], Z[k] = X[i] - pull * d, Z[k] + pull * d
    return X, Z


def token_exchange(
    x: Vector, paths: NDArray[np.int64], computes: NDArray[np.int64], grad: Gradient, lr: float, rho: float, c: float
) -> NDArray[np.float64]:
    """The nodes' models z; `computes: (T, n)` gradients before the tokens' visits of each round, at most one each."""
    K, n = len(paths), computes.shape[1]
    z, u, t, g = np.repeat(x[None], n, 0), np.repeat(x[None], n, 0), np.repeat(x[None], K, 0), np.zeros((n, len(x)))
    for at, taken in zip(paths.T, computes, strict=False):
        for i in np.flatnonzero(taken):
            before, old, z[i] = z[i].copy(), g[i].copy(), (1 - rho) * z[i] + rho * u[i]
            g[i] = grad(int(i), z[i])
            u[i] = u[i] - lr * (g[i] - old) + (1 + K / n) * (z[i] - before)
        for k, i in enumerate(at):
            u[i], t[k] = (1 - c) * u[i] + c * t[k], (1 - c) * t[k] + c * u[i]
    return z

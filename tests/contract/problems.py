"""What the contract tests compute on: heterogeneous quadratics with a known optimum, and graphs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from decentral.loading import example_with
from decentral.peer import Block, Layout, LossAndGradient
from decentral.topology import gallery
from decentral.topology.graph import checked_graph
from decentral.topology.mixing import MixingMatrix
from decentral.topology.schedule import StaticSchedule
from decentral.topology.topology import Topology
from decentral.transport.driver import GradientAt
from tests.contract.oracle import Gradients, Matrix

DIMENSION = 13

LAYOUTS: dict[str, Layout] = {
    "one block": (Block("weight", (DIMENSION,), 0),),
    "many blocks": (
        Block("layer.weight", (3, 2), 0),
        Block("layer.scale", (), 6),
        Block("layer.bias", (1,), 7),
        Block("head.weight", (1, 5, 1), 8),
    ),
}
"""Ways to cut the flat vector into parameter tensors; 13 float32 numbers do not fill their frame's last 8 bytes."""

GRAPHS: dict[str, tuple[str, int, Mapping[str, Any]]] = {
    "ring-8": ("ring", 8, {}),
    "ring-9": ("ring", 9, {}),
    "ring-16": ("ring", 16, {}),
    "star-32": ("star", 32, {}),
    "tree-31": ("tree", 31, {"branching": 2}),
    "torus-4x8": ("torus", 32, {"rows": 4}),
    "hypercube-32": ("hypercube", 32, {}),
    "complete-8": ("complete", 8, {}),
    "complete-4": ("complete", 4, {}),
    "tree-7": ("tree", 7, {"branching": 2}),
    "social-32": ("davis", 32, {}),
    "social-15": ("florentine", 15, {}),
    "path-4": ("tree", 4, {"branching": 1}),
    "path-2": ("tree", 2, {"branching": 1}),
}
"""Graphs of the gallery: regular and not, bipartite and not, with odd and even rings."""


@cache
def graph(name: str) -> Topology:
    """One of GRAPHS, with Metropolis weights."""
    family, nodes, options = GRAPHS[name]
    return shipped(family, nodes, **options)


def shipped(name: str, nodes: int, **options: Any) -> Topology:
    """A topology of the gallery, by its section."""
    return gallery.load(example_with(topology={"name": name, **options}).topology, nodes, Path())


def pushing(topology: Topology) -> tuple[Topology, str]:
    """The same links with what each node sends shared out equally: unequal degrees make the sums unequal."""
    return Topology.static(topology.name, topology.graph, "column-stochastic"), ""


def spanning(topology: Topology) -> tuple[Topology, str]:
    """A tree of shortest ways from node 0, on some of the links."""
    tree = nx.bfs_tree(topology.graph, 0).to_undirected()
    return Topology.static(topology.name, checked_graph(tree, topology.nodes, topology.name), "metropolis"), ""


def alone(nodes: int) -> Topology:
    """Nodes that do not know each other: W = I."""
    identity = MixingMatrix(csr_array(np.eye(nodes)))
    return Topology("alone", nx.empty_graph(nodes), StaticSchedule(identity))


def dense(topology: Topology) -> Matrix:
    """W, (n, n)."""
    return topology.schedule.matrix(0).dense()


@dataclass(frozen=True, eq=False)
class Quadratics:
    """f_i(x) = 1/2 (x - b_i)^T A_i (x - b_i), with a sequence of noise on each node's gradients.

    Attributes:
        A: (n, d, d), symmetric positive definite.
        b: (n, d)
        noise: (T, n, d), added to the gradients of the first T rounds; zero after that.
    """

    A: NDArray[np.float64]
    b: Matrix
    noise: NDArray[np.float64]

    @classmethod
    def draw(cls, nodes: int, *, noisy_rounds: int = 0, seed: int = 0) -> "Quadratics":
        """A_i = M M^T / d + 0.2 I with normal M, and b_i = 3 N(0, I): every node wants to go elsewhere."""
        random = np.random.default_rng(seed)
        M = random.standard_normal((nodes, DIMENSION, DIMENSION))
        A = M @ M.transpose(0, 2, 1) / DIMENSION + 0.2 * np.eye(DIMENSION)
        b = 3 * random.standard_normal((nodes, DIMENSION))
        return cls(A, b, random.standard_normal((noisy_rounds, nodes, DIMENSION)))

    @classmethod
    def isotropic(cls, nodes: int, smoothness: float) -> "Quadratics":
        """A_i = L I: the curvature is the same in every direction and at every node."""
        drawn = cls.draw(nodes)
        return cls(np.broadcast_to(smoothness * np.eye(DIMENSION), drawn.A.shape), drawn.b, drawn.noise)

    @property
    def nodes(self) -> int:
        return len(self.A)

    @property
    def smoothness(self) -> float:
        """L, the largest eigenvalue of all A_i."""
        return float(np.linalg.eigvalsh(self.A).max())

    @property
    def optimum(self) -> NDArray[np.float64]:
        """(d,), where sum_i A_i (x - b_i) = 0."""
        return np.linalg.solve(self.A.sum(axis=0), np.einsum("nij,nj->i", self.A, self.b))

    def starts(self, seed: int = 1) -> Matrix:
        """A different start for every node, (n, d)."""
        return np.random.default_rng(seed).standard_normal((self.nodes, DIMENSION))

    def gradients(self) -> Gradients:
        """For the oracle: all nodes' gradients (n, d); each call takes the next round's noise."""
        noise = iter(self.noise)

        def at(X: Matrix) -> Matrix:
            return np.einsum("nij,nj->ni", self.A, X - self.b) + next(noise, 0.0)

        return at

    def gradient(self, node: int, dtype: torch.dtype = torch.float64) -> GradientAt:
        """For a driver: each answer overwrites the one before, as an objective's gradients do."""
        A, b, noise = (torch.from_numpy(part.copy()).to(dtype) for part in (self.A[node], self.b[node], self.noise))
        answer, upcoming = torch.empty_like(b), iter(noise)

        def at(x: Tensor) -> LossAndGradient:
            apart = x - b
            torch.mv(A, apart, out=answer)
            loss = apart @ answer / 2
            extra = next(upcoming, None)
            if extra is not None:
                answer.add_(extra[node])
            return LossAndGradient(loss, answer)

        return at

    def answers(self, dtype: torch.dtype = torch.float64) -> list[GradientAt]:
        """`gradient` of every node."""
        return [self.gradient(node, dtype) for node in range(self.nodes)]


def flat(nodes: int) -> list[Callable[[Tensor], LossAndGradient]]:
    """Objectives that are 0 everywhere: what remains of a method is its gossip."""
    return [lambda x: LossAndGradient(torch.zeros((), dtype=x.dtype), torch.zeros_like(x))] * nodes

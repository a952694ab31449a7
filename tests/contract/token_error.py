"""SA-SRRW's error against alpha: `python -m tests.contract.token_error [REPLICAS] [VISITS]`; minutes, so no test.

Scalar tokens on the karate club, f_i(x) = (x - b_i)^2 / 2 with b_i = 1 in one of the two factions and -1 in the other,
beta_n = (n + 1)^-b and gamma_n = (n + 1)^-a. What is printed is the mean of (x - x*)^2 over the replicas, as a ratio to
that of alpha = 0, beside the asymptotic formula of case (i):

    sum_k (h u_k)^2 / (alpha (1 + l_k) + 1)^2 (1 + l_k) / (1 - l_k),     h_i = b_i - x*

with l_k < 1 and u_k the eigenvalues and eigenvectors of the Metropolis-Hastings chain. At so few visits the ratio of
gamma_n to beta_n is about 2.5, so the formula's 1 / alpha^2 is far off: only the order of the first alphas is asserted.
"""

import sys

import networkx as nx
import numpy as np
import torch

from decentral.algorithms import TOKEN_METHODS
from decentral.peer import Block, LossAndGradient, Peer
from decentral.topology.topology import Topology
from decentral.topology.walk_analysis import transition
from decentral.transport.driver import GradientAt
from decentral.transport.lockstep import LockstepDriver
from tests.contract.runs import sgd

ALPHAS = 0.0, 1.0, 5.0, 10.0, 20.0
A, B = 0.8, 0.9


def error(topology: Topology, b: np.ndarray, alpha: float, visits: int, seed: int) -> float:
    """(x - x*)^2 of one token."""

    def pull(target: float) -> GradientAt:
        return lambda x: LossAndGradient((x - target).square().sum() / 2, x - target)

    algorithm = TOKEN_METHODS["sa-srrw"](local=sgd(1.0), alpha=alpha, decay=B, gamma_decay=A, visits=visits).on(
        topology
    )  # type: ignore[call-arg]
    layout = (Block("x", (1,), 0),)
    peers = {n: Peer(n, len(b), lambda turn, n=n: topology.row(n), layout, seed) for n in range(len(b))}
    states = {n: algorithm.init(torch.zeros(1, dtype=torch.float64), peer) for n, peer in peers.items()}
    LockstepDriver([pull(float(each)) for each in b]).advance(
        {n: algorithm.step(states[n], peers[n]) for n in peers}, 0
    )
    (token,) = (token for state in states.values() for token in state.held.values())
    return float((token.x[0] - b.mean()) ** 2)


def main(replicas: int, visits: int) -> None:
    torch.set_num_threads(1)
    graph = nx.convert_node_labels_to_integers(nx.karate_club_graph())
    b = np.array([1.0 if graph.nodes[n]["club"] == "Mr. Hi" else -1.0 for n in graph])
    topology = Topology.static("karate", nx.Graph(graph.edges), "metropolis")
    chain = TOKEN_METHODS["sa-srrw"](local=sgd(1.0)).on(topology).chain
    assert chain is not None
    values, vectors = np.linalg.eigh(transition(chain).toarray())
    loads = ((b - b.mean()) @ vectors[:, :-1]) ** 2 * (1 + values[:-1]) / (1 - values[:-1])
    asymptotic = {alpha: (loads / (alpha * (1 + values[:-1]) + 1) ** 2).sum() / loads.sum() for alpha in ALPHAS}
    found = {alpha: [error(topology, b, alpha, visits, seed) for seed in range(replicas)] for alpha in ALPHAS}
    for alpha, errors in found.items():
        mean, spread = np.mean(errors), np.std(errors) / replicas**0.5
        ratio = mean / np.mean(found[0.0])
        told = f"MSE {mean:.3e} +- {spread:.1e}, ratio {ratio:.3f}, asymptotic {asymptotic[alpha]:.3f}"
        sys.stdout.write(f"alpha {alpha:4g}: {told}\n")
    means = [np.mean(found[alpha]) for alpha in (0.0, 1.0, 5.0)]
    assert means == sorted(means, reverse=True), "the error falls from alpha 0 over 1 to 5"


if __name__ == "__main__":
    asked = [int(word) for word in sys.argv[1:]]
    main(*asked, *[60, 4000][len(asked) :])

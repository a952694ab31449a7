"""Push-sum and RelaySum: what their sums must keep, what they must reach, and where."""

from functools import partial
from typing import get_args

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from decentral.algorithms.allreduce import AllReduceSGD
from decentral.algorithms.dsgd import DSGD
from decentral.algorithms.relay_sgd import Form, RelaySGD, sum_but_one
from decentral.algorithms.stochastic_gradient_push import StochasticGradientPush
from decentral.errors import ConfigError
from decentral.peer import Peer
from decentral.topology.topology import Topology
from decentral.training.algorithm import between_nodes
from decentral.transport.dry import DryNode
from decentral.transport.world import World
from tests.contract.directed import directed
from tests.contract.oracle import Matrix, Sgd
from tests.contract.oracle_sums import relay
from tests.contract.problems import DIMENSION, LAYOUTS, Quadratics, flat, graph, shipped
from tests.contract.ranks import WIRES, on_ranks
from tests.contract.runs import Recorder, Run, play, same, sgd, simulate
from tests.contract.test_algorithms import common_start

every_form = pytest.mark.parametrize("form", get_args(Form))


# Push-sum.


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_where_nodes_send_and_receive_equally_push_sum_is_gossip(momentum: float) -> None:
    """Bit for bit: with weights of 1/2 the sums' weight stays 1, in float32 too."""
    topology, problem = shipped("one_peer_exponential", 8), Quadratics.draw(8, noisy_rounds=20)
    local, start = sgd(0.05, momentum=momentum, weight_decay=0.1), torch.from_numpy(problem.starts()).float()
    pushed, gossiped = (
        simulate(algorithm, topology, problem.answers(torch.float32), start, 20).models
        for algorithm in (StochasticGradientPush(local=local), DSGD(local=local))
    )
    assert pushed.tobytes() == gossiped.tobytes()


def mass(run: Run) -> tuple[Matrix, float]:
    """The sums (d,) and the weight of all nodes, and of all that is under way to others."""
    total, weight = np.zeros(DIMENSION), 0.0
    for state in run.states.values():
        total += state.x.numpy() * float(state.weight)  # type: ignore[attr-defined]
        weight += float(state.weight)  # type: ignore[attr-defined]
    return total, weight


def kept_by_senders(run: Run, topology: Topology, rounds: int, delay: int) -> tuple[Matrix, float]:
    """What is under way after so many rounds: of each round's y and w all that its sender did not keep."""
    total, weight = np.zeros(DIMENSION), 0.0
    for node, state in run.states.items():
        for when in range(max(rounds - delay, 0), rounds):
            y, w = state.told[when % (delay + 1)]  # type: ignore[attr-defined]
            share = 1 - topology.row(node, when).weights[node]
            total, weight = total + share * y.numpy(), weight + share * float(w)
    return total, weight


ARC = st.tuples(st.integers(0, 6), st.integers(0, 6))


@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 7), arcs=st.lists(ARC, max_size=12), delay=st.integers(0, 3), rounds=st.integers(1, 8))
def test_push_sum_loses_nothing(n: int, arcs: list[tuple[int, int]], delay: int, rounds: int) -> None:
    """On any strongly connected graph, counting what is under way."""
    links = nx.cycle_graph(n, create_using=nx.DiGraph)
    links.add_edges_from((i % n, j % n) for i, j in arcs if i % n != j % n)
    topology, X = Topology.static("drawn", links, "column-stochastic"), Quadratics.draw(n).starts()
    run = simulate(StochasticGradientPush(local=sgd(0.1), delay=delay), topology, flat(n), X, rounds)
    held, under_way = mass(run), kept_by_senders(run, topology, rounds, delay)
    np.testing.assert_allclose(held[0] + under_way[0], X.sum(axis=0), rtol=0, atol=1e-12)
    assert held[1] + under_way[1] == pytest.approx(n, abs=1e-12)
    assert (under_way[1] > 0.1) == (delay > 0), "else nothing was late"


@pytest.mark.parametrize("delay", [0, 1, 2])
@pytest.mark.parametrize("on", ["lopsided-5", "one-way-4", "drawn-5"])
def test_its_ratios_tend_to_the_mean(on: str, delay: int) -> None:
    topology, algorithm = directed(on), StochasticGradientPush(local=sgd(0.1), delay=delay)
    X = Quadratics.draw(topology.nodes).starts()
    run = simulate(algorithm, topology, flat(topology.nodes), X, 120 + 190 * delay)
    np.testing.assert_allclose(run.final, np.tile(X.mean(axis=0), (topology.nodes, 1)), rtol=0, atol=1e-6)


def test_the_sum_of_all_moves_by_the_steps_alone() -> None:
    topology, rounds, lr = directed("lopsided-4"), 12, 0.05
    problem = Quadratics.draw(4, noisy_rounds=rounds)
    recorders = [Recorder.of(gradient) for gradient in problem.answers()]
    run = simulate(StochasticGradientPush(local=sgd(lr)), topology, recorders, common_start(problem), rounds)
    steps = sum(lr * answer.numpy() for recorder in recorders for answer in recorder.answers)
    np.testing.assert_allclose(mass(run)[0], common_start(problem).sum(axis=0) - steps, rtol=0, atol=1e-12)
    weights = [float(state.weight) for state in run.states.values()]  # type: ignore[attr-defined]
    assert np.ptp(weights) > 0.3
    for recorder, points in zip(recorders, np.swapaxes(run.models, 0, 1), strict=True):
        np.testing.assert_array_equal(torch.stack(recorder.points).numpy(), points[:-1])  # at z, which is what x is


@pytest.mark.parametrize("delay", [0, 1])
def test_whoever_sends_more_than_it_receives_counts_no_less(delay: int) -> None:
    """The bias shrinks with the step, to the optimum of the unweighted mean, though weights are as 1 to 5."""
    topology, problem = directed("lopsided-5"), Quadratics.draw(5)

    def bias(lr: float) -> float:
        start = np.repeat(problem.optimum[None], 5, axis=0)
        algorithm = StochasticGradientPush(local=sgd(lr), delay=delay)
        run = simulate(algorithm, topology, problem.answers(), start, round(5 / lr))
        return float(np.square(run.final - problem.optimum).sum())

    assert 3 < bias(0.04) / bias(0.02) < 5


@pytest.mark.parametrize("delay", [0, 1])
def test_from_one_round_of_delay_on_the_wire_is_hidden_behind_the_gradient(delay: int) -> None:
    topology = shipped("one_peer_exponential", 8)
    dry, peer = DryNode(8), Peer(0, 8, partial(topology.row, 0), LAYOUTS["one block"])
    algorithm = StochasticGradientPush(local=sgd(0.1), delay=delay)
    state = algorithm.init(torch.empty(DIMENSION, device="meta"), peer)
    for peer.round in range(3):
        dry.advance(algorithm.step(state, peer))
    behind = [[exchange.behind for exchange in did.exchanges] for did in dry.rounds]
    assert behind == ([[], [1], [1]] if delay else [[0], [0], [0]])


def test_what_comes_late_is_refused_where_a_node_keeps_nothing_until_then() -> None:
    turned = nx.cycle_graph(3, create_using=nx.DiGraph)
    nx.set_edge_attributes(turned, 1.0, "weight")
    topology = Topology.static("turned", turned, "given")
    assert between_nodes(StochasticGradientPush(local=sgd(0.1)), topology, ()) is topology
    with pytest.raises(ConfigError, match=r"receives what others send 2 round\(s\) late"):
        between_nodes(StochasticGradientPush(local=sgd(0.1), delay=2), topology, ())


# RelaySum.


@settings(max_examples=12, deadline=None)
@given(parents=st.lists(st.integers(0, 10**6), max_size=11), form=st.sampled_from(["arrived", "own", "start"]))
def test_relayed_constants_are_averaged_exactly_once_the_widest_way_is_gone(parents: list[int], form: Form) -> None:
    """With f_i = |x - c_i|^2 / 2 and a step of 1 node i has c_i to tell in every round, whatever it has heard."""
    tree = nx.empty_graph(len(parents) + 1)
    tree.add_edges_from((parent % node, node) for node, parent in enumerate(parents, start=1))
    topology, n, width = Topology.static("drawn", tree, "metropolis"), len(tree), nx.diameter(tree)
    problem, start = Quadratics.isotropic(n, 1.0), np.zeros((n, DIMENSION))
    run = simulate(RelaySGD(local=sgd(1.0), form=form), topology, problem.answers(), start, width + 2)
    apart = np.abs(run.models - problem.b.mean(axis=0)).max(axis=(1, 2))
    assert (apart[max(width, 1) :] <= 1e-12).all()
    assert (apart[:width] > 1e-3).all(), "too early"
    for state in run.states.values():
        assert sum(int(count) for count in state.trees[0].counts.values()) == n - 1  # type: ignore[attr-defined]


def test_before_that_a_node_has_the_mean_of_whom_it_has_heard() -> None:
    """Along a path: itself and its neighbors after one round, two to each side after two."""
    topology, n = shipped("path", 6), 6
    problem = Quadratics.isotropic(n, 1.0)
    run = simulate(RelaySGD(local=sgd(1.0)), topology, problem.answers(), np.zeros((n, DIMENSION)), 3)
    for k in (1, 2, 3):
        for i in range(n):
            heard = problem.b[max(i - k, 0) : i + k + 1]
            np.testing.assert_allclose(run.models[k, i], heard.mean(axis=0), rtol=0, atol=1e-12)


@every_form
def test_between_two_nodes_it_is_all_reduce(form: Form) -> None:
    topology, problem, rounds = graph("path-2"), Quadratics.draw(2, noisy_rounds=30), 30
    local = sgd(0.05, momentum=0.9, weight_decay=0.1)
    relayed, central = (
        simulate(algorithm, topology, problem.answers(), common_start(problem), rounds).models
        for algorithm in (RelaySGD(local=local, form=form), AllReduceSGD(local=local))
    )
    if form == "updates":  # each node has a momentum of its own gradients, and their mean is that of the mean gradient
        relayed, central = relayed.mean(axis=1), central.mean(axis=1)
    np.testing.assert_allclose(relayed, central, rtol=0, atol=1e-12)


def bias(form: Form, lr: float, rounds: int) -> float:
    problem, algorithm = Quadratics.draw(4), RelaySGD(local=sgd(lr), form=form)
    run = simulate(algorithm, graph("path-4"), problem.answers(), np.zeros((4, DIMENSION)), rounds)
    return float(np.square(run.final - problem.optimum).sum())


@pytest.mark.parametrize("form", ["arrived", "own", "start"])
def test_unequal_data_leave_no_bias_where_models_are_relayed(form: Form) -> None:
    assert bias(form, 0.6, 160) <= 1e-25


def test_they_leave_one_that_shrinks_with_the_step_where_updates_are() -> None:
    assert 3 < bias("updates", 0.1, 160) / bias("updates", 0.05, 320) < 4


def test_how_unequal_data_are_costs_hardly_a_round() -> None:
    """On a star, where gossip stalls at a bias that grows with it (the paper's figure 8)."""
    topology, start, rounds, stalled = shipped("star", 8), np.ones((8, DIMENSION)), [], []
    for spread in (0.0, 0.1, 1.0):
        drawn = Quadratics.isotropic(8, 1.0)
        problem = Quadratics(drawn.A, spread * drawn.b, drawn.noise)
        relayed, gossiped = (
            np.abs(simulate(algorithm, topology, problem.answers(), start, 40).models - problem.optimum)
            for algorithm in (RelaySGD(local=sgd(0.78)), DSGD(local=sgd(0.78)))
        )
        rounds.append(int(np.argmax(relayed.max(axis=(1, 2)) < 1e-6)))
        stalled.append(gossiped[-1].max())
    assert rounds[0] >= 8
    assert max(rounds) <= rounds[0] + 2
    assert stalled[0] < 1e-6 < 0.05 < stalled[1] < 0.2 * stalled[2]


@given(n=st.integers(0, 6), d=st.integers(1, 4), seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_sums_but_one(n: int, d: int, seed: int) -> None:
    draw = partial(torch.randn, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    own, heard = draw(), {3 * j: draw() for j in range(n)}
    out = {j: torch.full((d,), torch.nan, dtype=torch.float64) for j in heard}
    sum_but_one(own, heard, out)
    for j in heard:
        expected = own + sum((vector for k, vector in heard.items() if k != j), torch.zeros(d, dtype=torch.float64))
        torch.testing.assert_close(out[j], expected, rtol=0, atol=1e-12)


# Two trees.


def two(form: Form) -> RelaySGD:
    return RelaySGD(local=sgd(0.05), form=form, trees=2)


@every_form
@pytest.mark.parametrize("nodes", [4, 7])
def test_two_trees_relay_a_half_each(nodes: int, form: Form) -> None:
    topology, rounds = shipped("double_binary_trees", nodes, apart=True), 12
    problem = Quadratics.draw(nodes, noisy_rounds=rounds)
    run = simulate(two(form), topology, problem.answers(), common_start(problem), rounds)
    first, second = (topology.schedule.matrix(turn).dense() for turn in range(2))
    expected = relay(form, second)(common_start(problem), first, problem.gradients(), Sgd(lr=0.05), rounds)
    np.testing.assert_allclose(run.final, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("wire", WIRES)
def test_two_trees_on_real_ranks_give_the_bits_of_lockstep(wire: str) -> None:
    topology, algorithm, rounds = shipped("double_binary_trees", 4, apart=True), two("start"), 6
    problem = Quadratics.draw(4, noisy_rounds=rounds)
    start = torch.from_numpy(common_start(problem)).float()
    answers = problem.answers(torch.float32)
    simulated = simulate(algorithm, topology, answers, start, rounds)

    def work(world: World) -> Run:
        gradient = problem.gradient(world.rank, torch.float32)
        driver = world.driver(topology, gradient, run=7, epoch=1, largest=64 + 7 * 4 + 4 + 8)
        try:
            return play(algorithm, driver, topology, start, rounds)
        finally:
            driver.close()

    for rank, run in enumerate(on_ranks(4, work, wire=wire)):
        assert same(run.states[rank], simulated.states[rank])
        assert run.bytes_sent == {rank: simulated.bytes_sent[rank]}


def test_two_trees_spare_the_busiest_node() -> None:
    """Each node sends its half along at most four links, where one tree has nodes that send the whole along three."""
    sent = {}
    for trees, topology in ((1, shipped("tree", 31)), (2, shipped("double_binary_trees", 31, apart=True))):
        algorithm, busiest = RelaySGD(local=sgd(0.1), trees=trees), []
        for node in range(31):
            dry, peer = DryNode(31), Peer(node, 31, partial(topology.row, node), LAYOUTS["one block"])
            dry.advance(algorithm.step(algorithm.init(torch.empty(1000, device="meta"), peer), peer))
            busiest.append(dry.bytes_sent)
        sent[trees] = max(busiest)
    assert sent == {1: 3 * (64 + 4000 + 8), 2: 4 * (64 + 2000 + 8)}


@pytest.mark.parametrize(
    ("topology", "trees", "told"),
    [
        (graph("ring-8"), 1, r"needs a tree, found 1 edge\(s\) more than one has in ring"),
        (graph("torus-4x8"), 1, r"needs a tree, found 33 edge\(s\) more"),
        (shipped("double_binary_trees", 8), 1, r"found \d edge\(s\) more than one has in double_binary_trees"),
        (
            shipped("double_binary_trees", 8, apart=True),
            1,
            r"has 2 tree\(s\), one for each of its turns; found trees: 1",
        ),
        (shipped("tree", 8), 2, r"has 1 tree\(s\), one for each of its turns; found trees: 2"),
        (shipped("star", 6, schedule="matchings"), 5, "turn 0 of star does not connect all nodes"),
        (directed("cycle-4"), 1, "needs undirected links, found 3 -> 0 alone in cycle-4"),
    ],
)
def test_what_is_no_tree_is_refused(topology: Topology, trees: int, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        between_nodes(RelaySGD(local=sgd(0.1), trees=trees), topology, ())

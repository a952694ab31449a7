"""Asynchronous methods: what they come to without delays, what no order of events may change, and who waits."""

import json
from collections.abc import Callable
from dataclasses import replace
from math import pi, sin
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from decentral.algorithms import ALGORITHMS, ASYNCHRONOUS_METHODS
from decentral.algorithms.asynchronous import Asynchronous
from decentral.errors import ConfigError
from decentral.seeding import stream
from decentral.topology.influence import shares, weights_by_influence
from decentral.topology.mixing import MixingMatrix
from decentral.topology.schedule import StaticSchedule
from decentral.topology.topology import Topology
from decentral.transport.clock import Away, ExchangesInTime, Recorded, Spells, VirtualTime, Wire
from decentral.transport.lockstep import LockstepDriver
from tests.contract.free_runs import Steps, even, logged, play_freely
from tests.contract.oracle import Matrix
from tests.contract.problems import DIMENSION, Quadratics, alone, flat, graph, pushing
from tests.contract.runs import play, sgd, simulate
from tests.topology.topologies import named, one_way_ring

MOMENTUM = {"momentum": 0.5, "weight_decay": 0.1}


def method(name: str, lr: float = 0.05, **options: Any) -> Asynchronous:
    momentum = options.pop("momentum", {})
    return ASYNCHRONOUS_METHODS[name](local=sgd(lr, **momentum), **options)


def common_start(nodes: int) -> Matrix:
    return np.repeat(np.random.default_rng(1).standard_normal((1, DIMENSION)), nodes, axis=0)


def matchings() -> Topology:
    """A ring of eight whose nodes pair off, in one way in even turns and in the other in odd ones."""
    return named("ring", 8, schedule="matchings")


def by_influence(topology: Topology) -> Topology:
    """The same links with weights for nodes that count alike."""
    rows = np.zeros((topology.nodes, topology.nodes))
    for node, weights in enumerate(weights_by_influence(topology, ())):
        rows[node, list(weights)] = list(weights.values())
    return replace(topology, schedule=StaticSchedule(MixingMatrix(csr_array(rows))))


SIBLINGS: dict[str, tuple[str, dict[str, Any], str, dict[str, Any], Callable[[], Topology]]] = {
    "swift": ("swift", {}, "dsgd", {"order": "adapt-while-communicate"}, lambda: graph("ring-9")),
    "swift on unequal degrees": ("swift", {}, "dsgd", {"order": "adapt-while-communicate"}, lambda: graph("tree-7")),
    "swift every 3": (
        "swift",
        {"every": 3},
        "dsgd",
        {"order": "adapt-while-communicate", "every": 3},
        lambda: graph("ring-8"),
    ),
    "swift by influence": (
        "swift",
        {"weights": "ccs"},
        "dsgd",
        {"order": "adapt-while-communicate"},
        lambda: by_influence(graph("social-15")),
    ),
    "swift without memory": ("swift", {"memory": False}, "delayed-dsgd", {"delay": 0}, lambda: graph("ring-8")),
    "ad-psgd": ("ad-psgd", {}, "dsgd", {"order": "adapt-while-communicate"}, matchings),
    "ad-psgd of two": (
        "ad-psgd",
        {"max_delay": 0},
        "dsgd",
        {"order": "adapt-while-communicate"},
        lambda: graph("path-2"),
    ),
    "async-gradient-push": ("async-gradient-push", {}, "sgp", {}, lambda: graph("ring-8")),
    "async-gradient-push on unequal sums": (
        "async-gradient-push",
        {"weigh": False},
        "sgp",
        {},
        lambda: pushing(graph("tree-7"))[0],
    ),
}


@pytest.mark.parametrize("which", SIBLINGS)
def test_without_delays_it_is_its_synchronous_sibling_to_the_bit(which: str) -> None:
    name, options, sibling, of_sibling, made = SIBLINGS[which]
    topology, rounds = made(), 12
    problem = Quadratics.draw(topology.nodes, noisy_rounds=rounds)
    start = common_start(topology.nodes)
    algorithm = method(name, momentum=MOMENTUM, **options)
    run, driver = play_freely(algorithm, topology, problem.answers(), start, even(topology.nodes), rounds=rounds)
    local = sgd(0.05, **MOMENTUM)
    alike = simulate(ALGORITHMS[sibling](local=local, **of_sibling), topology, problem.answers(), start, rounds)  # type: ignore[call-arg]
    for steps in range(rounds + 1):
        assert np.array_equal(run.after(steps), alike.models[steps]), steps
    assert driver.clock() == rounds
    assert run.made == [rounds] * topology.nodes
    assert all(sum(algorithm.staleness(state)[1:]) == 0 for state in run.states)


def uneven(seed: int, nodes: int, *, loss: float = 0.0, slow: int | None = None, spread: float = 1.0) -> VirtualTime:
    """Times drawn at random, of gradients and, in a wide range, of links."""
    random = stream(seed, -1, "uneven")
    latency_s = random.exponential(0.7, (nodes, nodes)) * (random.random((nodes, nodes)) < 0.7)
    rates = 10 ** random.uniform(1.5, 5, (nodes, nodes))
    seconds = [10.0 if node == slow else 1.0 for node in range(nodes)]

    def factors(node: int) -> Any:
        own = stream(seed, node, "factors")
        while True:
            yield float(np.exp(spread * own.standard_normal()))

    return VirtualTime(
        seconds,
        lambda i, j: Wire(float(latency_s[i, j]), float(rates[i, j]), loss, 2 * float(latency_s[i, j]) + 0.5),
        factors={node: factors(node) for node in range(nodes)},
        draws=lambda i, j: stream(seed, i, f"losses to {j}"),
    )


CONSERVING: dict[str, dict[str, Any]] = {
    "ad-psgd": {},
    "ad-psgd max_delay": {"max_delay": 2},
    "async-gradient-push": {},
    "async-gradient-push max_delay": {"max_delay": 1},
}
AVERAGING: dict[str, dict[str, Any]] = {
    "swift": {},
    "swift max_delay": {"max_delay": 1},
    "swift every 2": {"every": 2, "max_delay": 3},
    "swift by influence": {"weights": "ccs", "influence": [*range(1, 10)]},
    "swift without memory": {"memory": False},
    "swift without memory, max_delay": {"memory": False, "max_delay": 2},
}
TIMES = {
    "seed": st.integers(0, 2**20),
    "loss": st.sampled_from([0.0, 0.2, 0.6]),
    "slow": st.sampled_from([None, 0, 3]),
    "spread": st.sampled_from([0.0, 0.3, 1.5]),
    "rounds": st.integers(1, 10),
}
SCHEDULES = st.fixed_dictionaries({"which": st.sampled_from([*CONSERVING]), **TIMES})
DOWN = {"down": st.sampled_from([None, "own", "neighbor"])}
AVERAGED = st.fixed_dictionaries({"which": st.sampled_from([*AVERAGING]), **DOWN, **TIMES})


def gossiped(which: str, topology: Topology, starts: Matrix, time: VirtualTime, rounds: int, *, is_up: bool) -> Steps:
    """Nothing but gossip: who is stuck, uses what is too old or the same twice is an error already."""
    (timed, events), nodes = logged(time), topology.nodes
    algorithm = method(which.split()[0], **{**CONSERVING, **AVERAGING}[which])
    run, _ = play_freely(algorithm, topology, flat(nodes), starts, timed, rounds=rounds)
    assert run.made == [rounds] * nodes
    if algorithm.max_delay is not None:
        assert max(len(algorithm.staleness(state)) for state in run.states) <= algorithm.max_delay + 1
    if is_up:  # else it begins the step that is lost once more
        check_each_is_taken_once(events.getvalue())
    return run


def check_schedule(which: str, rounds: int, **schedule: Any) -> None:
    """Whatever changes the sum of all models is an error: a message lost, or applied twice."""
    topology = pushing(graph("tree-7"))[0] if which.startswith("async-gradient-push") else graph("ring-9")
    nodes = topology.nodes
    starts = np.random.default_rng(schedule["seed"]).standard_normal((nodes, DIMENSION))
    run = gossiped(which, topology, starts, uneven(nodes=nodes, **schedule), rounds, is_up=True)
    weights = np.array([getattr(state, "weight", torch.ones(())).item() for state in run.states])[:, None]
    assert weights.sum() == pytest.approx(nodes, rel=1e-12)
    np.testing.assert_allclose((weights * run.final).sum(0), starts.sum(0), rtol=0, atol=1e-11 * nodes)


def check_averages(which: str, rounds: int, down: Literal["own", "neighbor"] | None, **schedule: Any) -> None:
    """All that a node ever has is a mean of what all began with; one may be down meanwhile."""
    starts = 5 + np.random.default_rng(schedule["seed"]).standard_normal((9, DIMENSION))  # weight that is lost shows
    time = uneven(nodes=9, **schedule)
    if down is not None:
        time.away = {2: [Away(Spells([1.5, 4.0]), down)]}
        time.__post_init__()
    run = gossiped(which, graph("ring-9"), starts, time, rounds, is_up=down is None)
    models = np.stack([model.numpy() for models in run.models for model in models])
    assert (models >= starts.min(0) - 1e-12).all()
    assert (models <= starts.max(0) + 1e-12).all()


def check_each_is_taken_once(text: str) -> None:
    """Of each link, what is taken comes in the order of the sender's steps, and never the same twice."""
    newest: dict[tuple[int, int], int] = {}
    for line in map(json.loads, text.splitlines()):
        for sender, step in line.get("pushes", {}).items():
            edge = int(sender), line["node"]
            assert step == -1 or step > newest.get(edge, -1)
            newest[edge] = step


def orders(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@settings(orders(50), derandomize=True)
@given(SCHEDULES)
def test_no_order_of_events_stops_it_or_loses_any_mass(schedule: dict[str, Any]) -> None:
    check_schedule(**schedule)


@settings(orders(30), derandomize=True)
@given(AVERAGED)
def test_no_order_of_events_stops_it_or_leads_out_of_what_all_began_with(schedule: dict[str, Any]) -> None:
    check_averages(**schedule)


@pytest.mark.long
@pytest.mark.timeout(1800)
@orders(2000)
@given(SCHEDULES)
def test_none_of_many_orders_stops_it_or_loses_any_mass(schedule: dict[str, Any]) -> None:
    check_schedule(**schedule)


@pytest.mark.long
@pytest.mark.timeout(1800)
@orders(2000)
@given(AVERAGED)
def test_none_of_many_orders_stops_it_or_leads_out_of_what_all_began_with(schedule: dict[str, Any]) -> None:
    check_averages(**schedule)


def test_pairs_that_average_agree_and_keep_the_sum() -> None:
    starts = np.random.default_rng(3).standard_normal((8, DIMENSION))
    run, _ = play_freely(method("ad-psgd"), graph("complete-8"), flat(8), starts, uneven(5, 8, loss=0.3), rounds=40)
    assert np.linalg.norm(run.final - starts.mean(0)) < 0.05 * np.linalg.norm(starts - starts.mean(0))
    np.testing.assert_allclose(run.final.sum(0), starts.sum(0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["swift", "ad-psgd", "async-gradient-push"])
def test_a_slow_node_does_not_hold_up_the_others(name: str) -> None:
    """One of eight is ten times slower. D-SGD, on the same clock, falls to its pace."""
    topology, duration_s = graph("ring-8"), 100.0
    problem, start = Quadratics.draw(8), common_start(8)

    def times() -> VirtualTime:
        return VirtualTime([10.0] + [1.0] * 7, lambda i, j: Wire(0.01, 1e5))

    run, _ = play_freely(method(name), topology, problem.answers(), start, times(), duration_s=duration_s)
    assert run.made[0] == 10
    assert min(run.made[1:]) >= 0.9 * duration_s
    rounds = 10
    driver = ExchangesInTime(LockstepDriver(problem.answers()), times())
    play(ALGORITHMS["dsgd"](local=sgd(0.05)), driver, topology, torch.from_numpy(start), rounds)
    assert driver.clock() >= 10 * rounds, "its nodes make 10 rounds in the time in which those made 100 steps"


@pytest.mark.parametrize("name", ["swift", "async-gradient-push", "ad-psgd"])
def test_a_bound_on_delay_is_kept_and_held_up_for(name: str) -> None:
    topology, bound = graph("ring-8"), 3
    algorithm, problem = method(name, max_delay=bound), Quadratics.draw(8)
    time = VirtualTime([10.0] + [1.0] * 7, lambda i, j: Wire(0.01))
    run, _ = play_freely(algorithm, topology, problem.answers(), common_start(8), time, duration_s=50.0)
    assert max(len(algorithm.staleness(state)) for state in run.states) == bound + 1
    free = method(name)
    run_free, _ = play_freely(
        free,
        topology,
        problem.answers(),
        common_start(8),
        VirtualTime(time.gradient_s, time.wire),
        duration_s=50.0,
    )
    assert max(len(free.staleness(state)) for state in run_free.states) > bound + 1
    assert min(run_free.made) >= min(run.made)
    assert sum(run_free.made) > sum(run.made), "who must not be late waits"


@pytest.mark.parametrize("name", ["swift", "ad-psgd", "async-gradient-push"])
def test_the_same_seed_gives_the_same_events_and_a_log_gives_the_same_run(name: str) -> None:
    topology, problem, start = graph("ring-9"), Quadratics.draw(9, noisy_rounds=40), common_start(9)

    def played(time: VirtualTime) -> tuple[Matrix, str]:
        timed, events = logged(time)
        run, _ = play_freely(method(name), topology, problem.answers(), start, timed, rounds=15)
        return run.final, events.getvalue()

    one, other, third = (played(uneven(seed, 9, loss=0.2)) for seed in (7, 7, 8))
    assert one[1] == other[1]
    assert one[1] != third[1]
    again = VirtualTime([0.0] * 9, lambda i, j: Wire(), recorded=Recorded.of("log", one[1].splitlines()))
    replayed = played(again)
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[0], replayed[0])
    assert replayed[1] == one[1]
    assert not np.array_equal(one[0], third[0])
    with pytest.raises(ConfigError, match=r"log is of another run: it has no (gradient|message) 15 "):
        play_freely(
            method(name),
            topology,
            problem.answers(),
            start,
            VirtualTime([0.0] * 9, lambda i, j: Wire(), recorded=Recorded.of("log", one[1].splitlines())),
            rounds=16,
        )


@pytest.mark.parametrize("tau", [0, 1, 8])
@pytest.mark.parametrize("share", [0.97, 1.03])
def test_late_gradients_converge_just_below_the_limit_and_diverge_just_above(tau: int, share: float) -> None:
    """eta L < 2 sin(pi / (2 (2 tau + 1))): .1845 for tau = 8, and 2 without delay."""
    smoothness = 3.0
    limit = 2 * sin(pi / (2 * (2 * tau + 1)))
    problem, rounds = Quadratics.isotropic(1, smoothness), 300 * (tau + 2)
    algorithm = ALGORITHMS["delayed-dsgd"](local=sgd(share * limit / smoothness), delay=tau, of="gradients")  # type: ignore[call-arg]
    run = simulate(algorithm, alone(1), problem.answers(), problem.starts(), rounds)
    distance = np.linalg.norm(run.models - problem.optimum, axis=(1, 2))
    assert distance[-1] < 1e-3 * distance[0] if share < 1 else distance[-1] > 1e3 * distance[0]


def test_delays_are_drawn_as_often_as_a_histogram_says() -> None:
    algorithm = ALGORITHMS["delayed-dsgd"](local=sgd(0.1), histogram=[3, 0, 1])  # type: ignore[call-arg]
    drawn = [algorithm.drawn(0, round, "from 1 to 2") for round in range(400)]  # type: ignore[attr-defined]
    assert set(drawn) == {0, 2}
    assert 0.18 < np.mean([delay == 2 for delay in drawn]) < 0.32
    with pytest.raises(ConfigError, match="found a fixed delay and a histogram of delays"):
        ALGORITHMS["delayed-dsgd"](local=sgd(0.1), histogram=[3], delay=1)  # type: ignore[call-arg]


def test_weight_that_is_given_away_and_not_got_back_does_not_run_out() -> None:
    """Its neighbors stand still for 2,000 of its steps: 3^-2000 is 0, and 0 / 0 is no model."""
    topology, problem = graph("path-4"), Quadratics.draw(4)
    time = VirtualTime([1e5, 1.0, 1e5, 1e5], lambda i, j: Wire())
    run, _ = play_freely(
        method("async-gradient-push", lr=0.01),
        topology,
        problem.answers(),
        common_start(4),
        time,
        duration_s=2000.0,
        starving=10**6,
    )
    assert run.made == [1, 2000, 1, 1]
    assert np.isfinite(run.final).all()
    assert sum(state.weight.item() for state in run.states) == pytest.approx(4)


PULLS: dict[str, dict[str, Any]] = {
    "swift": {},
    "async-gradient-push": {},
    "ad-psgd": {},
    "async-gradient-push by 1": {"weigh": False},
}


def test_who_pulls_harder_for_stepping_more_often() -> None:
    """Two of four nodes are five times faster than the others. As a share of the way from the optimum of all losses to
    that where each counts by its steps: SWIFT and push-sum weighed by mass stay near 0, where pairs average, or where
    each step counts in full, it is near 1."""
    topology, problem = graph("complete-4"), Quadratics.isotropic(4, 1.0)
    seconds = np.array([1.0, 1.0, 5.0, 5.0])
    biased = (problem.b / seconds[:, None]).sum(0) / (1 / seconds).sum() - problem.optimum

    def share(which: str) -> float:
        time = VirtualTime([*seconds], lambda i, j: Wire())
        algorithm = method(which.split()[0], lr=0.02, **PULLS[which])
        run, _ = play_freely(algorithm, topology, problem.answers(), common_start(4), time, duration_s=400.0)
        return float((run.final.mean(0) - problem.optimum) @ biased / (biased @ biased))

    shares = {which: share(which) for which in PULLS}
    assert abs(shares["swift"]) < 0.15, shares
    assert abs(shares["async-gradient-push"]) < 0.15, shares
    assert shares["ad-psgd"] > 0.6, shares
    assert shares["async-gradient-push by 1"] > 0.6, shares


@pytest.mark.parametrize("seconds", [[1.0, 1.0, 1.0, 1.0], [1.0, 5.0, 1.0, 3.0]])
def test_losses_count_by_influence_however_fast_their_nodes_are(seconds: list[float]) -> None:
    """On a path, whose degrees are not equal. Without influence the model would end where all count alike."""
    influence, problem = [4.0, 1.0, 1.0, 2.0], Quadratics.isotropic(4, 1.0)
    wanted = shares(influence, 4) @ problem.b
    algorithm = method("swift", lr=0.01, weights="ccs", influence=influence)
    time = VirtualTime([*seconds], lambda i, j: Wire())
    run, _ = play_freely(algorithm, graph("path-4"), problem.answers(), common_start(4), time, duration_s=1000.0)
    off = np.linalg.norm(run.final.mean(0) - wanted) / np.linalg.norm(problem.optimum - wanted)
    assert off < 0.1


REFUSED: dict[str, tuple[dict[str, Any], Callable[[], Topology], str]] = {
    "influence of no use": ({"influence": [1.0] * 8}, lambda: graph("ring-8"), "found influence, .* add weights: ccs"),
    "too few": ({"weights": "ccs", "influence": [1.0] * 7}, lambda: graph("ring-8"), "found 7 numbers of influence"),
    "one-way links": ({"weights": "ccs"}, lambda: one_way_ring(8), "found one-way links in .*; weights: ccs needs"),
}


@pytest.mark.parametrize("which", REFUSED)
def test_weights_that_cannot_be_made_are_refused(which: str) -> None:
    options, made, told = REFUSED[which]
    algorithm = method("swift", **options)
    with pytest.raises(ConfigError, match=told):
        algorithm.on(algorithm.suited(made())[0])

"""The battery of methods in which one node serves: against a loop over events, and against what is known exactly."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import pi, sin
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from decentral.algorithms import ALGORITHMS, HUB_METHODS
from decentral.algorithms.hub import Hub
from decentral.errors import ConfigError
from decentral.peer import LossAndGradient
from decentral.topology.topology import Topology
from decentral.transport.clock import Away, Spells, VirtualTime, Wire
from decentral.transport.driver import GradientAt
from decentral.transport.world import World
from tests.contract import oracle_hub as oracle
from tests.contract.free_runs import Steps, even, play_freely
from tests.contract.oracle import Matrix
from tests.contract.problems import DIMENSION, Quadratics, graph, shipped
from tests.contract.ranks import on_ranks
from tests.contract.runs import play, sgd, simulate
from tests.contract.test_asynchronous import orders, uneven

LR, DECAY = 0.03, 0.1


def method(name: str, lr: float = LR, **options: Any) -> Hub:
    rate = options.pop("sgd", {})
    return HUB_METHODS[name](local=sgd(lr, **rate), **options)


def star(others: int) -> Topology:
    return shipped("star", others + 1)


def common_start(others: int) -> Matrix:
    return np.repeat(np.random.default_rng(1).standard_normal((1, DIMENSION)), others + 1, axis=0)


def delays(run: Steps) -> list[int]:
    """The histogram of delays at the hub."""
    return run.algorithm.staleness(run.states[0])


def serve(algorithm: Hub, problem: Quadratics, time: VirtualTime, **until: Any) -> Steps:
    others = problem.nodes - 1
    return play_freely(algorithm, star(others), problem.answers(), common_start(others), time, **until)[0]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to set a method up, and how a result changes the model."""

    change: oracle.Change
    settings: Mapping[str, Any]
    local_steps: int = 0
    proximal: float = 0.0


def stepped(factor: Callable[[int], float]) -> oracle.Change:
    return lambda x, g, start, delay: x - LR * factor(delay) * (g + DECAY * x)


def corrected(x: oracle.Vector, g: oracle.Vector, start: oracle.Vector, delay: int) -> oracle.Vector:
    g = g + DECAY * x
    return x - LR * (g + 0.04 * g * g * (x - start))


def adaptively() -> oracle.Change:
    squares: list[oracle.Vector] = [np.zeros(DIMENSION)]

    def change(x: oracle.Vector, g: oracle.Vector, start: oracle.Vector, delay: int) -> oracle.Vector:
        g = g + DECAY * x
        squares.append(0.9 * squares[-1] + 0.1 * g * g)
        return x - LR * (g + 0.5 / np.sqrt(squares[-1] + 1e-7) * g * g * (x - start))

    return change


CASES: dict[str, dict[str, Callable[[], Case]]] = {
    "async-sgd": {
        "": lambda: Case(change=stepped(lambda delay: 1.0), settings={}),
        "mishchenko": lambda: Case(change=stepped(lambda s: 4 / max(4, s)), settings={"rule": "mishchenko"}),
        "koloskova": lambda: Case(change=stepped(lambda s: 1 if s <= 4 else 1 / s), settings={"rule": "koloskova"}),
    },
    "ringmaster": {
        "": lambda: Case(
            change=lambda x, g, start, s: stepped(lambda s: 1.0)(x, g, start, s) if s < 3 else None,
            settings={"drop_after": 3},
        )
    },
    "dc-asgd": {
        "": lambda: Case(change=corrected, settings={}),
        "adaptive": lambda: Case(change=adaptively(), settings={"adaptive": True, "strength": 0.5, "decay": 0.9}),
    },
    "fedasync": {
        "": lambda: Case(
            change=lambda x, y, start, s: (1 - 0.6 * (1 + s) ** -0.5) * x + 0.6 * (1 + s) ** -0.5 * y,
            settings={"every": 3},
            local_steps=3,
        ),
        "hinge": lambda: Case(
            change=lambda x, y, start, s: x + 0.5 / (1 + 2 * max(s - 2, 0)) * (y - x),
            settings={"every": 1, "weigh": "hinge", "mix": 0.5, "hinge_after": 2, "hinge_slope": 2.0},
            local_steps=1,
        ),
        "proximal": lambda: Case(
            change=lambda x, y, start, s: x + 0.6 * (1 + s) ** -0.5 * (y - x),
            settings={"every": 4, "proximal": 2.5},
            local_steps=4,
            proximal=2.5,
        ),
    },
    "fedbuff": {
        "one by one": lambda: Case(
            change=lambda x, y, start, s: x + 0.7 * (1 + s) ** -0.5 * (y - start),
            settings={"every": 2, "buffer": 1, "server_lr": 0.7},
            local_steps=2,
        )
    },
}
ALL = [(name, which) for name, cases in CASES.items() for which in cases]


@pytest.mark.parametrize(("name", "which"), ALL)
def test_it_is_the_loop_over_events(name: str, which: str) -> None:
    """Four nodes of different speed, behind links of different latency."""
    case, jobs = CASES[name][which](), 12
    problem, seconds, latency_s = Quadratics.draw(5), [1.0, 1.37, 2.9, 7.3], [0.01, 0.2, 0.0, 0.05]
    steps = max(case.local_steps, 1)
    time = VirtualTime([1.0, *seconds], lambda i, j: Wire(latency_s[max(i, j) - 1]))
    algorithm = method(name, sgd={"weight_decay": DECAY}, **case.settings)
    run = serve(algorithm, problem, time, rounds=jobs * steps)

    def work(node: int, x: oracle.Vector) -> oracle.Vector:
        if not case.local_steps:
            return problem.A[node] @ (x - problem.b[node])
        start = x
        for _ in range(case.local_steps):
            x = x - LR * (problem.A[node] @ (x - problem.b[node]) + DECAY * x + case.proximal * (x - start))
        return x

    job_s = [steps * each + 2 * way for each, way in zip(seconds, latency_s, strict=True)]
    x, late = oracle.served(common_start(4)[0], work, case.change, job_s, jobs)
    np.testing.assert_allclose(run.final[0], x, rtol=1e-11, atol=1e-11)
    assert delays(run) == np.bincount(late).tolist()
    assert run.made == [jobs * steps] * 5


@pytest.mark.parametrize("name", ["async-sgd", "ringmaster", "dc-asgd"])
def test_with_one_node_it_is_sgd_to_the_bit(name: str) -> None:
    problem, rounds = Quadratics.draw(2, noisy_rounds=20), 20
    rate = {"weight_decay": DECAY, "drop": 11}
    algorithm = method(name, sgd=rate, **({"drop_after": 1} if name == "ringmaster" else {}))
    run = serve(algorithm, problem, even(2), rounds=rounds)
    x = torch.from_numpy(common_start(1)[0].copy()).requires_grad_()
    optimizer, answer = torch.optim.SGD([x], lr=LR, weight_decay=DECAY), problem.gradient(1)
    for round in range(rounds):
        optimizer.param_groups[0]["lr"] = LR * (1.0 if round < 11 else 0.1)
        x.grad = answer(x.detach()).gradient
        optimizer.step()
    assert torch.equal(run.states[0].x, x.detach())
    assert delays(run) == [rounds]


def exactly(nodes: int) -> list[GradientAt]:
    """f_i(x) = 1/2 |x - i|^2: with learning rates and numbers of nodes that are powers of 2 there is no rounding."""
    return [lambda x, node=node: LossAndGradient(torch.zeros(()), x - node) for node in range(nodes)]  # type: ignore[misc]


@pytest.mark.parametrize("every", [1, 3])
def test_a_buffer_for_all_of_nodes_that_are_equally_fast_is_fedavg_to_the_bit(every: int) -> None:
    """In numbers that are represented exactly, since both add up in another order. The hub holds no data there."""
    others, rounds = 4, 12 // every * every
    starts = np.tile(np.arange(DIMENSION, dtype=np.float64), (others + 1, 1))
    local = sgd(0.25)
    buffered = HUB_METHODS["fedbuff"](local=local, every=every, buffer=others)  # type: ignore[call-arg]
    run, driver = play_freely(buffered, star(others), exactly(others + 1), starts, even(others + 1), rounds=rounds)
    averaged = ALGORITHMS["fedavg"](local=local, every=every)  # type: ignore[call-arg]
    sibling = simulate(averaged, graph("complete-4"), exactly(others + 1)[1:], starts[1:], rounds)
    assert np.array_equal(run.final[0], sibling.final[0])
    assert delays(run) == [others * rounds // every]
    assert driver.clock() == rounds


@pytest.mark.parametrize("rule", ["constant", "mishchenko", "koloskova"])
@pytest.mark.parametrize("share", [0.97, 1.03])
def test_with_equally_fast_nodes_it_converges_just_below_the_exact_limit_and_diverges_just_above(
    share: float, rule: str
) -> None:
    """eta L < 2 sin(pi / (2 (2 tau + 1))), .3473 for tau = 4: no rule raises it."""
    others, smoothness, rounds = 5, 3.0, 160
    tau = others - 1
    lr = share * 2 * sin(pi / (2 * (2 * tau + 1))) / smoothness
    problem = Quadratics.isotropic(others + 1, smoothness)
    problem.b[:] = problem.b[0]
    run = serve(method("async-sgd", lr, rule=rule), problem, even(others + 1), rounds=rounds)
    assert delays(run) == [1] * tau + [rounds * others - tau]
    distance = [np.linalg.norm(model.numpy() - problem.b[0]) for model in run.models[0]]
    assert distance[-1] < 0.05 * distance[0] if share < 1 else distance[-1] > 20 * distance[0]


@pytest.mark.parametrize(
    ("rule", "least", "most"), [("constant", 0.19, 0.21), ("mishchenko", 1e-7, 1e-6), ("koloskova", 1e-8, 1e-6)]
)
def test_one_gradient_that_comes_very_late_undoes_all_but_where_the_rule_heeds_it(
    rule: str, least: float, most: float
) -> None:
    """Koloskova et al.'s two nodes: the gradient at x_0 is the last of T = 2000, with eta = 0.1. The loss that it
    leaves is eta^2 / 2 |x_0 - b|^2 = 0.2, and with the rules the square of their factors of that, 2/2000 and 1/1999."""
    problem, T = Quadratics.isotropic(3, 1.0), 2000
    problem.b[:] = 0.0
    starts = np.full((3, DIMENSION), np.sqrt(40 / DIMENSION))
    time = VirtualTime([1.0, 1.0, T - 0.5], lambda i, j: Wire())
    run, _ = play_freely(
        method("async-sgd", 0.1, rule=rule),
        star(2),
        problem.answers(),
        starts,
        time,
        duration_s=T - 1.0,
        starving=T,
    )
    assert len(delays(run)) == 128, "the last place counts what is older"
    assert delays(run)[-1] == 1
    assert run.states[0].changes == T
    loss = (run.final[0] ** 2).sum() / 2
    assert least < loss < most


def test_ringmaster_applies_no_delay_of_r_or_more() -> None:
    problem = Quadratics.draw(9)
    for bound in (1, 5, 20):
        run = serve(method("ringmaster", drop_after=bound), problem, uneven(3, 9, slow=3), duration_s=60.0)
        assert 0 < len(delays(run)) <= bound
        assert sum(delays(run)) == run.states[0].changes


def test_ringmaster_is_the_fastest_node_alone_or_async_sgd() -> None:
    problem, seconds = Quadratics.draw(4), [1.0, 2.7, 1.0, 5.3]
    play_it = partial(serve, problem=problem, duration_s=40.0)
    fastest = play_it(method("ringmaster", drop_after=1), time=VirtualTime(seconds, lambda i, j: Wire()))
    x, answer = torch.from_numpy(common_start(3)[0].copy()), problem.gradient(2)
    for _ in range(fastest.states[0].changes):
        x.add_(answer(x).gradient, alpha=-LR)
    assert fastest.states[0].changes == 40
    assert torch.equal(fastest.states[0].x, x)
    patient = play_it(method("ringmaster", drop_after=10**9), time=uneven(3, 4))
    asynchronous = play_it(method("async-sgd"), time=uneven(3, 4))
    assert np.array_equal(patient.final, asynchronous.final)
    assert delays(patient) == delays(asynchronous)


TAU, SHARES, TARGETS = (0.3, 1.0, 2.5, 4.2), (0.4, 0.3, 0.2, 0.1), (0.25, 1.0, 2.0, 2.0)


@pytest.mark.parametrize("every_s", [0.5, 1.0])
def test_the_fixed_point_of_fedfix_is_that_of_the_importances_with_its_weights_alone(every_s: float) -> None:
    """Node i pulls to TARGETS[i], whose mean by SHARES is 1. With identical weights it is that by p / ceil(tau / D)."""
    assert np.dot(SHARES, TARGETS) == pytest.approx(1.0)
    counted = np.array(SHARES) / np.ceil(np.array(TAU) / every_s)
    predicted = {"unbiased": 1.0, "identical": counted @ TARGETS / counted.sum()}
    assert predicted["identical"] < 0.9
    identity = np.broadcast_to(np.eye(DIMENSION), (5, DIMENSION, DIMENSION))
    problem = Quadratics(identity, np.outer([0.0, *TARGETS], np.ones(DIMENSION)), np.zeros((0, 5, 1)))
    for weights, fixed in predicted.items():
        algorithm = method("fedfix", 0.015, every_s=every_s, every=1, weights=weights, importance=SHARES)
        time = VirtualTime([1.0, *TAU], lambda i, j: Wire())
        run = serve(algorithm, problem, time, duration_s=700 * every_s)
        assert run.final[0] == pytest.approx(np.full(DIMENSION, fixed), abs=0.02), weights
        assert {*np.flatnonzero(delays(run))} == {*(np.ceil(np.array(TAU) / every_s) - 1)}


def constant_loss(nodes: int) -> list[GradientAt]:
    answer = LossAndGradient(torch.zeros(()), torch.zeros(DIMENSION, dtype=torch.float64))
    return [lambda x: answer] * nodes


def test_the_speed_up_lemma() -> None:
    """900 nodes take 10 s and 100 take 60 s, C = 10 jobs are out. A round of C gradients takes the mean of the nodes'
    times where jobs are handed out one by one, the greatest of C sampled nodes where the hub waits for all of them:
    sum_i a_i Delta_i with a_i = (i^C - (i-1)^C) / n^C over the times in ascending order, 42.57 s."""
    seconds, C, n = np.array([10.0] * 900 + [60.0] * 100), 10, 1000
    places = np.arange(1, n + 1, dtype=np.float64)
    by_all = (((places / n) ** C - ((places - 1) / n) ** C) * seconds).sum()
    assert by_all == pytest.approx(42.57, abs=0.01)
    found = {}
    for wait_for in (1, C):
        run, driver = play_freely(
            method("async-sgd", assign="shuffled", concurrency=C, wait_for=wait_for),
            star(n),
            constant_loss(n + 1),
            np.zeros((n + 1, DIMENSION)),
            VirtualTime([1.0, *seconds], lambda i, j: Wire()),
            rounds=2,
        )
        assert run.states[0].changes == 2 * n
        found[wait_for] = driver.clock() / (2 * n / C)
    assert found[1] == pytest.approx(15.0, rel=0.01)
    assert found[C] == pytest.approx(by_all, rel=0.1), "of 200 rounds, whose times have a standard deviation of 24 s"


@pytest.mark.parametrize(("name", "bound"), [("async-sgd", 3), ("async-sgd", 6), ("fedasync", 3), ("fedbuff", 1)])
def test_a_bound_on_delay_is_kept_and_held_up_for(name: str, bound: int) -> None:
    """One of four nodes is ten times slower than the others."""
    problem, time = Quadratics.draw(5), VirtualTime([1.0, 1.0, 1.1, 1.2, 10.0], lambda i, j: Wire(0.01))
    options: dict[str, Any] = {"buffer": 2} if name == "fedbuff" else {}
    run = serve(method(name, max_delay=bound, **options), problem, time, duration_s=100.0)
    free = serve(method(name, **options), problem, VirtualTime(time.gradient_s, time.wire), duration_s=100.0)
    assert len(delays(run)) == bound + 1
    assert len(delays(free)) > bound + 3
    assert run.states[0].changes < free.states[0].changes
    assert min(run.made[1:]) > 5, "nobody is locked out"


def test_who_gets_the_jobs() -> None:
    """Of two nodes one is four times faster. As many jobs for each where shuffled, and the optimum is that of both."""
    problem = Quadratics.isotropic(3, 1.0)
    middle, towards = problem.b[1:].mean(0), (problem.b[1] - problem.b[2]) / 2
    shares, made = {}, {}
    for assign in ("ready", "random", "shuffled"):
        time = VirtualTime([1.0, 1.0, 4.0], lambda i, j: Wire())
        run = serve(method("async-sgd", 0.01, assign=assign), problem, time, duration_s=2500.0)
        shares[assign] = (run.final[0] - middle) @ towards / (towards @ towards)
        made[assign] = run.made[1] / run.made[2]
    assert made["ready"] == 4.0
    assert made["shuffled"] == pytest.approx(1.0, abs=0.01)
    assert made["random"] == pytest.approx(1.0, abs=0.15)
    assert shares["ready"] == pytest.approx((4 - 1) / (4 + 1), abs=0.05)
    assert abs(shares["shuffled"]) < 0.05
    assert abs(shares["random"]) < 0.25


EVERYONE: dict[str, dict[str, Any]] = {
    "async-sgd": {"rule": "koloskova"},
    "async-sgd bounded": {"max_delay": 5},
    "async-sgd random": {"assign": "random", "concurrency": 7, "wait_for": 3},
    "async-sgd shuffled bounded": {"assign": "shuffled", "max_delay": 5},
    "ringmaster": {"drop_after": 2},
    "dc-asgd": {"adaptive": True},
    "fedasync": {"every": 2, "proximal": 0.5},
    "fedbuff": {"every": 2, "buffer": 3, "max_delay": 2},
    "fedbuff random": {"every": 1, "buffer": 4, "assign": "random", "wait_for": 2},
    "fedfix": {"every": 2, "every_s": 1.7},
    "fedfix shuffled": {"every": 1, "every_s": 0.4, "assign": "shuffled"},
}
SCHEDULES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**20),
        "loss": st.sampled_from([0.0, 0.2, 0.6]),
        "slow": st.sampled_from([None, 0, 3]),
        "spread": st.sampled_from([0.0, 0.3, 1.5]),
        "down": st.sampled_from([None, 0, 2]),
    }
)


def check_schedule(which: str, rounds: int, down: int | None, **schedule: Any) -> None:
    """Every node makes its steps, whatever is lost and whoever is down meanwhile, and each job comes back once."""
    algorithm, time = method(which.split()[0], **EVERYONE[which]), uneven(nodes=7, **schedule)
    if down is not None:
        time.away = {down: [Away(Spells([1.5, 4.0]), "own")]}
        time.__post_init__()
    run = serve(algorithm, Quadratics.draw(7), time, rounds=rounds)
    assert run.made == [rounds] * 7, which
    hub = run.states[0]
    assert {*hub.gone} == {*range(1, 7)}, which
    half_done = [node for node in range(1, 7) if run.states[node].done > 0]
    assert [node for node, jobs in hub.jobs.items() for _ in jobs] == half_done, which
    assert bool(half_done) == (rounds % algorithm.every > 0), which
    assert hub.computed == 6 * (rounds // algorithm.every) * algorithm.every, which
    assert algorithm.max_delay is None or len(delays(run)) <= algorithm.max_delay + 1


@settings(orders(8), derandomize=True)
@given(SCHEDULES, st.integers(1, 7))
def test_no_order_of_events_stops_it(schedule: dict[str, Any], rounds: int) -> None:
    for which in EVERYONE:
        check_schedule(which, rounds, **schedule)


@pytest.mark.long
@pytest.mark.timeout(1800)
@orders(2000)
@given(st.sampled_from([*EVERYONE]), SCHEDULES, st.integers(1, 7))
def test_none_of_many_orders_stops_it(which: str, schedule: dict[str, Any], rounds: int) -> None:
    check_schedule(which, rounds, **schedule)


def test_the_averaged_model_is_the_hubs() -> None:
    run = serve(method("async-sgd"), Quadratics.draw(4), uneven(2, 4), rounds=5)
    shares = [run.algorithm.share(state, peer) for state, peer in zip(run.states, run.peers, strict=True)]
    whole = sum((vector for vector, _ in shares), torch.zeros(()))  # type: ignore[misc]
    assert torch.equal(whole / sum(weight for _, weight in shares), run.states[0].x)  # type: ignore[misc]


@pytest.mark.parametrize("wire", ["gloo", "shared-memory"])
def test_its_letters_go_over_real_links(wire: str) -> None:
    """In rounds, of which each is a step of every node: with one node beside the hub there is one order of events."""
    problem, rounds = Quadratics.draw(2, noisy_rounds=10), 10
    starts = torch.from_numpy(common_start(1))
    algorithm = method("async-sgd")

    def work(world: World) -> Tensor:
        driver = world.driver(star(1), problem.gradient(world.rank), run=7, epoch=0)
        run = play(algorithm, driver, star(1), starts, rounds)
        return run.states[world.rank].x

    found = on_ranks(2, work, wire=wire)
    alike = simulate(algorithm, star(1), problem.answers(), starts, rounds)
    assert torch.equal(found[0], alike.states[0].x)
    assert not torch.equal(found[0], starts[0])


BAD: dict[str, tuple[str, dict[str, Any], Callable[[], Topology], str]] = {
    "ring": ("async-sgd", {}, lambda: graph("ring-8"), "found ring with 8 nodes and 8 links; node 0 serves all others"),
    "other hub": ("async-sgd", {}, lambda: graph("tree-7"), "use topology: star"),
    "few jobs": ("async-sgd", {"concurrency": 2}, lambda: star(4), "found concurrency: 2 for 4 nodes"),
    "waits for ever": ("async-sgd", {"wait_for": 5}, lambda: star(4), "required: at most the 4 jobs that are out"),
    "impatient": ("fedasync", {"max_delay": 2}, lambda: star(4), "of 4 jobs that are out one gets 3 changes old"),
    "too important": ("fedfix", {"every_s": 1.0, "importance": [1.0] * 5}, lambda: star(4), "found 5 numbers"),
}


@pytest.mark.parametrize("which", BAD)
def test_what_does_not_fit_is_refused(which: str) -> None:
    name, options, made, told = BAD[which]
    algorithm = method(name, **options)
    with pytest.raises(ConfigError, match=told):
        algorithm.on(algorithm.suited(made())[0])


def test_everyone_is_here() -> None:
    assert {*CASES, "fedfix"} == {*HUB_METHODS} == {which.split()[0] for which in EVERYONE}

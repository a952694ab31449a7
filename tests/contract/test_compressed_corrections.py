"""Methods that correct what compression and unequal data do, and two that do not: identities, sums kept, and limits."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.beer import BEER
from decentral.algorithms.choco import Choco
from decentral.algorithms.dcd import DCD
from decentral.algorithms.deepsqueeze import DeepSqueeze
from decentral.algorithms.dsgd import DSGD
from decentral.algorithms.ecd import ECD
from decentral.algorithms.exact_diffusion import ExactDiffusion
from decentral.algorithms.gradient_tracking import GradientTracking
from decentral.algorithms.lead import LEAD
from decentral.algorithms.motef import MoTEF
from decentral.compression import Space, compressor_of
from decentral.compression.consensus_step import search
from decentral.errors import ConfigError
from decentral.peer import Peer
from decentral.topology.topology import Topology
from tests.compression.entries import ENTRIES
from tests.contract import oracle, oracle_compressed
from tests.contract.problems import DIMENSION, LAYOUTS, Quadratics, alone, dense, graph
from tests.contract.runs import Recorder, Run, sgd, simulate
from tests.contract.test_algorithms import common_start
from tests.contract.test_compressed import CONTRACTIVE, changing

pytestmark = pytest.mark.timeout(90)

TWO_BITS = {"name": "qsgd", "bits": 2, "norm": "inf", "block": 512}
UNBIASED = {
    name: section
    for name, section in ENTRIES.items()
    if compressor_of(section, Space(DIMENSION, torch.float64)).variance is not None
}

AWC: Any = {"order": "adapt-while-communicate"}
EQUAL: dict[str, tuple[Algorithm, Algorithm, float]] = {
    "LEAD with alpha = 1 is Exact Diffusion": (
        LEAD(local=sgd(0.05), compression="none", copy_step=1.0),
        ExactDiffusion(local=sgd(0.05)),
        1e-13,
    ),
    "BEER is gradient tracking": (
        BEER(local=sgd(0.05, momentum=0.5), compression="none", consensus_step=1.0),
        GradientTracking(local=sgd(0.05, momentum=0.5), **AWC),
        1e-13,
    ),
    "MoTEF with lambda = 1 is BEER": (
        MoTEF(local=sgd(0.05), compression=TWO_BITS | {"unbiased": False}, consensus_step=0.2, momentum_step=1.0),
        BEER(local=sgd(0.05), compression=TWO_BITS | {"unbiased": False}, consensus_step=0.2),
        0.0,
    ),
    "DeepSqueeze is D-SGD": (
        DeepSqueeze(local=sgd(0.05), compression="none", consensus_step=1.0),
        DSGD(local=sgd(0.05)),
        1e-13,
    ),
    "DCD-PSGD is D-SGD": (DCD(local=sgd(0.05), compression="none"), DSGD(local=sgd(0.05), **AWC), 1e-13),
    "ECD-PSGD is D-SGD": (ECD(local=sgd(0.05), compression="none"), DSGD(local=sgd(0.05), **AWC), 1e-12),
}
"""Without compression and with gamma = 1, where nothing else is said."""


@pytest.mark.parametrize(("one", "other", "tolerance"), EQUAL.values(), ids=EQUAL)
def test_reductions(one: Algorithm, other: Algorithm, tolerance: float) -> None:
    problem, topology, rounds = Quadratics.draw(8, noisy_rounds=60), graph("ring-8"), 60
    models = [
        simulate(method, topology, problem.answers(), common_start(problem), rounds).models for method in (one, other)
    ]
    np.testing.assert_allclose(*models, rtol=0, atol=tolerance)


def test_lead_computes_its_equations_with_two_bits() -> None:
    """For a few rounds: numbers that three levels stand for do not answer to small changes, and rounding grows."""
    problem, topology, rounds = Quadratics.draw(8, noisy_rounds=12), graph("ring-8"), 12
    run = simulate(
        LEAD(local=sgd(0.05), compression=TWO_BITS, copy_step=0.25),
        topology,
        problem.answers(),
        common_start(problem),
        rounds,
    )
    equations = oracle_compressed.lead(oracle_compressed.referenced(TWO_BITS), 1.0, 0.25)
    expected = equations(common_start(problem), dense(topology), problem.gradients(), oracle.Sgd(lr=0.05), rounds)
    np.testing.assert_allclose(run.final, expected, rtol=0, atol=1e-12)


# Where they end.


def error(method: Algorithm, problem: Quadratics, rounds: int, on: str = "path-4") -> float:
    """The squared distance of all models to the optimum, from zeros."""
    run = simulate(method, graph(on), problem.answers(), np.zeros((problem.nodes, DIMENSION)), rounds)
    return float(np.square(run.final - problem.optimum).sum())


TOP: dict[str, Any] = {"name": "top-k", "fraction": 0.2}
ENDS: dict[str, tuple[Algorithm, int, float, float]] = {
    "lead": (LEAD(local=sgd(0.1), compression=TWO_BITS, copy_step=0.25), 500, 0, 1e-19),
    "beer": (BEER(local=sgd(0.1), compression=TOP, consensus_step=0.5), 800, 0, 1e-19),
    "d-sgd": (DSGD(local=sgd(0.1)), 300, 1, 1e3),
    "choco": (Choco(local=sgd(0.1), compression=TOP, consensus_step=0.5), 300, 1, 1e3),
}


@pytest.mark.parametrize(("method", "rounds", "least", "most"), ENDS.values(), ids=ENDS)
def test_unequal_data_leave_no_bias_where_it_is_corrected(
    method: Algorithm, rounds: int, least: float, most: float
) -> None:
    """Though LEAD sends 2 bits a number, and BEER a fifth of them."""
    assert least <= error(method, Quadratics.draw(4), rounds) <= most


def test_beer_does_best_with_the_consensus_step_that_a_search_finds() -> None:
    """Its models and what it tracks are gossiped as the search does it: half the step is slower, and twice diverges."""
    problem = Quadratics.draw(4)
    gamma = search(graph("path-4"), TOP, Space(DIMENSION, torch.float64)).gamma
    found, half, twice = (
        error(BEER(local=sgd(0.1), compression=TOP, consensus_step=step), problem, 400)
        for step in (gamma, gamma / 2, 2 * gamma)
    )
    assert found < 1e-2 * min(half, twice)


RANDOM = {"name": "random-k", "k": 3, "shared": False}


@pytest.mark.parametrize(
    "compression", [{"name": "qsgd", "bits": 2}, RANDOM | {"unbiased": True}], ids=["2 bits", "a random quarter"]
)
def test_the_methods_without_memory_fail_where_choco_does_not(compression: dict[str, Any]) -> None:
    """On equal data, where D-SGD ends at the optimum. The same messages, which CHOCO has smaller by a factor."""
    drawn = Quadratics.draw(4)
    problem = replace(drawn, b=np.repeat(drawn.b[:1], 4, axis=0))
    contractive = compression | {"unbiased": False}
    assert error(Choco(local=sgd(0.1), compression=contractive, consensus_step=0.1), problem, 120) < 1e-2
    assert error(DCD(local=sgd(0.1), compression=compression), problem, 120) > 1e10
    assert error(ECD(local=sgd(0.1), compression=compression), problem, 120) > 1e3
    for method in (DCD, ECD):
        assert error(method(local=sgd(0.1), compression="int8"), problem, 120) < 0.1


# Sums that are kept.


MEAN: dict[str, Algorithm] = {
    "lead": LEAD(local=sgd(0.05), compression=TWO_BITS, copy_step=0.25),
    "beer": BEER(local=sgd(0.05), compression="none", consensus_step=1.0),
    "motef": MoTEF(local=sgd(0.05), compression="none", consensus_step=1.0, momentum_step=0.3),
    "deepsqueeze": DeepSqueeze(local=sgd(0.05), compression="none", consensus_step=1.0),
}


def compressors(method: str) -> dict[str, dict[str, Any]]:
    """Those that it takes."""
    return UNBIASED if method == "lead" else CONTRACTIVE


def moves_as_its_gradients_say(method: Algorithm, topology: Topology, rounds: int) -> Run:
    """Whether the mean of all models moves by -lr times the mean gradient, or momentum, in each round."""
    problem = Quadratics.draw(topology.nodes, noisy_rounds=rounds)
    recorders = [Recorder.of(gradient) for gradient in problem.answers()]
    run = simulate(method, topology, recorders, common_start(problem), rounds, layout=LAYOUTS["many blocks"])
    grads = np.stack([torch.stack(recorder.answers).numpy() for recorder in recorders], axis=1).mean(axis=1)
    followed = [grads[0]]
    for gradient in grads[1:]:
        share = method.momentum_step if isinstance(method, MoTEF) else 1.0
        followed.append((1 - share) * followed[-1] + share * gradient)
    means = run.models.mean(axis=1)
    wrong = np.abs(means[1:] - means[:-1] + 0.05 * np.stack(followed)).max(axis=1)
    assert (wrong <= 1e-12 * np.maximum.accumulate(np.abs(run.models).max(axis=(1, 2)))[1:]).all()
    return run


@pytest.mark.parametrize("gamma", [0.1, 1.0])
@pytest.mark.parametrize(
    ("method", "compression"),
    [
        pytest.param(method, section, id=f"{name} {label}")
        for name, method in MEAN.items()
        for label, section in compressors(name).items()
    ],
)
def test_the_mean_is_kept_whatever_is_compressed(method: Any, compression: dict[str, Any], gamma: float) -> None:
    moves_as_its_gradients_say(replace(method, compression=compression, consensus_step=gamma), graph("path-4"), 12)


DIVERGING: dict[str, Algorithm] = {
    "lead": LEAD(local=sgd(0.05), compression=TWO_BITS, copy_step=0.9),
    "beer": BEER(local=sgd(0.05), compression={"name": "top-k", "k": 1}, consensus_step=1.0),
    "motef": MoTEF(local=sgd(0.05), compression={"name": "top-k", "k": 1}, consensus_step=1.0, momentum_step=0.3),
    "deepsqueeze": DeepSqueeze(local=sgd(0.05), compression={"name": "top-k", "k": 1}, consensus_step=1.0),
}


@pytest.mark.parametrize("method", DIVERGING.values(), ids=DIVERGING)
def test_the_mean_is_kept_on_the_way_to_infinity(method: Algorithm) -> None:
    run = moves_as_its_gradients_say(method, graph("ring-8"), 150)
    assert np.abs(run.final).max() > 1e4


def stacked(run: Run, name: str) -> Tensor:
    """One of the vectors of each node's State, (n, d)."""
    return torch.stack([getattr(state, name) for state in run.states.values()])


IN_FLOAT32: dict[str, tuple[Algorithm, str]] = {
    "lead, 2 bits": (LEAD(local=sgd(0.05), compression=TWO_BITS, copy_step=0.25), "dual"),
    "lead, all numbers": (LEAD(local=sgd(0.05), compression="none"), "dual"),
    "beer, top 3": (BEER(local=sgd(0.05), compression={"name": "top-k", "k": 3}, consensus_step=0.3), "correction"),
    "beer, all numbers": (BEER(local=sgd(0.05), compression="none", consensus_step=1.0), "correction"),
}


@pytest.mark.parametrize(("method", "name"), IN_FLOAT32.values(), ids=IN_FLOAT32)
def test_corrections_keep_their_sum_in_float32(method: Algorithm, name: str) -> None:
    """With flows in float32 they were off by 1e-6 after 60 rounds, and by more in every round."""
    problem, topology = Quadratics.draw(4, noisy_rounds=60), graph("path-4")
    starts = torch.from_numpy(common_start(problem)).to(torch.float32)
    run = simulate(method, topology, problem.answers(torch.float32), starts, 60)
    kept = stacked(run, name)
    assert kept.dtype == torch.float64
    assert float(kept.mean(dim=0).norm() / kept.norm(dim=1).mean()) < 1e-13


@pytest.mark.parametrize("rounds", [1, 2, 20])
def test_beer_tracks_the_mean_gradient(rounds: int) -> None:
    problem, topology = Quadratics.draw(8, noisy_rounds=rounds), graph("ring-8")
    recorders = [Recorder.of(gradient) for gradient in problem.answers()]
    method = BEER(local=sgd(0.05), compression="int8", consensus_step=0.4)
    run = simulate(method, topology, recorders, common_start(problem), rounds)
    expected = torch.stack([recorder.answers[-1] for recorder in recorders]).mean(dim=0)
    torch.testing.assert_close(stacked(run, "tracked").mean(dim=0), expected, rtol=0, atol=1e-13)


def test_the_flow_is_that_between_the_copies() -> None:
    problem, topology = Quadratics.draw(8), graph("ring-8")
    run = simulate(
        LEAD(local=sgd(0.05), compression=TWO_BITS, copy_step=0.25),
        topology,
        problem.answers(),
        common_start(problem),
        40,
    )
    copies: list[Any] = [state.copy for state in run.states.values()]  # type: ignore[attr-defined]
    own, flow = (torch.stack([getattr(copy, name) for copy in copies]).numpy() for name in ("own", "flow"))
    np.testing.assert_allclose(flow, dense(topology) @ own - own, rtol=0, atol=1e-12)


# What is refused.


def lonely() -> Peer:
    return Peer(0, 1, lambda turn: alone(1).row(0), LAYOUTS["one block"])


@pytest.mark.parametrize(
    ("method", "found"),
    [
        (LEAD(local=sgd(0.1), compression="top-k"), "found top-k, whose mean is not the vector itself"),
        (BEER(local=sgd(0.1), compression=TWO_BITS, consensus_step=0.1), "found qsgd, whose error may be larger"),
        (DeepSqueeze(local=sgd(0.1), compression=TWO_BITS, consensus_step=0.1), "found qsgd, whose error"),
    ],
)
def test_a_compressor_that_theory_does_not_allow_is_refused(method: Algorithm, found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        method.init(torch.zeros(DIMENSION), lonely())


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (MEAN["lead"], "LEAD"),
        (MEAN["beer"], "BEER"),
        (MEAN["motef"], "MoTEF"),
        (DCD(local=sgd(0.1), compression="none"), "DCD-PSGD"),
        (ECD(local=sgd(0.1), compression="none"), "ECD-PSGD"),
    ],
)
def test_a_sum_of_copies_needs_a_matrix_that_stays(method: Algorithm, name: str) -> None:
    with pytest.raises(ConfigError, match=f"and {name} needs the same in all"):
        method.suited(changing("matchings-6"))
    assert method.suited(graph("ring-8"))[0] is graph("ring-8")

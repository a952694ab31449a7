"""The common battery: whoever enters ALGORITHMS enters CASES and is held to the same contract."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from decentral.algorithms import ALGORITHMS
from decentral.algorithms.algorithm import Algorithm
from decentral.algorithms.d2 import D2
from decentral.algorithms.local import LocalOptimizer
from decentral.algorithms.quasi_global_adam import Variant
from decentral.algorithms.relay_sgd import Form
from decentral.compression import Space, compressor_of
from decentral.peer import Layout, LossAndGradient, Peer
from decentral.topology.groups import members
from decentral.topology.topology import Topology
from decentral.transport.dry import DryNode
from decentral.transport.lockstep import LockstepDriver
from decentral.transport.world import World
from tests.contract import (
    oracle,
    oracle_asynchronous,
    oracle_central,
    oracle_compressed,
    oracle_correction,
    oracle_low_communication,
    oracle_sums,
)
from tests.contract.oracle_central import coded
from tests.contract.problems import DIMENSION, LAYOUTS, Quadratics, alone, dense, graph, pushing, spanning
from tests.contract.ranks import WIRES, on_ranks
from tests.contract.runs import Recorder, Run, kept, peer_at, play, same, sgd, simulate
from tests.topology.topologies import named

Bytes = Callable[[int, int, int, int], int]
"""bytes(rounds, degree, nodes, bytes of the flat vector): what a node sends in all."""


def gossip_bytes(rounds: int, degree: int, nodes: int, size: int, every: int = 1, vectors: int = 1) -> int:
    """A message to each neighbor in each mixing round: a header of 64 bytes, and each vector in whole 8 bytes."""
    return rounds // every * degree * (64 + vectors * ((size + 7) // 8 * 8))


def slowmo_bytes(rounds: int, degree: int, nodes: int, size: int, every: int, gossip: bool) -> int:
    """Gossip in every round, and an all-reduce in every tau-th."""
    gossiped = gossip_bytes(rounds, degree, nodes, size) if gossip else 0
    return gossiped + ring_all_reduce_bytes(rounds // every, degree, nodes, size)


def ring_all_reduce_bytes(rounds: int, degree: int, nodes: int, size: int) -> int:
    return rounds * round(2 * (nodes - 1) / nodes * size)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to set an algorithm up, and what it must do.

    Attributes:
        equations: its oracle.
        bytes_sent: its formula.
        settings: of the algorithm.
        tolerance: between transports; None for bitwise, where no engine owns the order of a sum.
        centralized: whether all nodes hold the same model, and have no graph.
        size: nodes of each group, where the graph is one of groups.
        optimizers: names of OPTIMIZERS that it is run with.
        alone: whether one node alone is torch's own optimizer.
        mean: whether a round moves the mean of all by -lr times the mean gradient.
        by_node: whether what a node draws depends on its number.
        brief: whether one of several combinations is enough.
        suited: the graph that it makes of the given one.
        layout: of the flat vector where that matters.
        shapes: how many kinds of rounds there are, by the shapes of what is sent.
    """

    equations: oracle.Equations
    bytes_sent: Bytes
    settings: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float | None = None
    centralized: bool = False
    size: int = 1
    optimizers: Sequence[str] = ("plain", "momentum", "nesterov", "adamw")
    alone: bool = True
    mean: bool = True
    by_node: bool = False
    brief: bool = False
    suited: Callable[[Topology], tuple[Topology, str]] = lambda graph: (graph, "")
    layout: Layout = LAYOUTS["one block"]
    shapes: int = 1

    def on(self, graph: Topology) -> Topology:
        """The graph of the nodes, from the experiment's graph."""
        linked = 1 if self.settings.get("between") == "leaders" else self.size
        return members(graph, self.size, linked) if self.size > 1 else self.suited(graph)[0]

    def matrix(self, graph: Topology) -> oracle.Matrix:
        """W of the equations."""
        return dense(self.suited(graph)[0])

    def among(self, optimizers: Sequence[str]) -> list[str]:
        """Those of some optimizers that it is run with, or the one that stands for all."""
        return [name for name in optimizers if name in self.optimizers] or [self.optimizers[0]]


def push(delay: int) -> Case:
    def bytes_sent(rounds: int, degree: int, nodes: int, vector: int) -> int:
        return gossip_bytes(rounds - delay, degree, nodes, vector) + (rounds - delay) * degree * 8

    equations, settings = oracle_sums.push(delay), {"delay": delay}
    return Case(settings=settings, equations=equations, bytes_sent=bytes_sent, suited=pushing, **SUMMED)


def relay(form: str) -> Case:
    def bytes_sent(rounds: int, degree: int, nodes: int, vector: int) -> int:
        return gossip_bytes(rounds, degree, nodes, vector) + rounds * degree * 8

    is_alone_exact = form != "updates"  # x + (x' - x) is not x' to the bit
    return Case(
        settings={"form": form},
        equations=oracle_sums.relay(form),
        bytes_sent=bytes_sent,
        suited=spanning,
        **(SUMMED | {"alone": is_alone_exact}),
    )


def hierarchical(order: str, between: str, size: int, every: int = 1) -> Case:
    def bytes_sent(rounds: int, degree: int, nodes: int, vector: int) -> int:
        numbers = DIMENSION if between != "slices" else -(-DIMENSION // size)
        inside = round(2 * (size - 1) / size * vector)
        spread = inside * (rounds // every) if between != "ranks" else 0
        return gossip_bytes(rounds, degree, nodes, vector // DIMENSION * numbers, every) + rounds * inside + spread

    equations = oracle.hierarchical(getattr(oracle, order.replace("-", "_")), size)
    settings = {"order": order, "between": between, "group": size, "every": every}
    return Case(
        settings=settings,
        equations=partial(equations, every=every),
        bytes_sent=bytes_sent,
        tolerance=None if size == 2 else 1e-6,  # the sum of two is the same in either order
        size=size,
    )


def dsgd(order: str, every: int) -> Case:
    equations = getattr(oracle, order.replace("-", "_"))
    return Case(
        settings={"order": order, "every": every},
        equations=partial(equations, every=every),
        bytes_sent=partial(gossip_bytes, every=every),
    )


def delayed(delay: int, of: str) -> Case:
    """Late models keep no mean, and late gradients are no plain SGD."""
    return Case(
        settings={"delay": delay, "of": of},
        equations=oracle_asynchronous.delayed(delay, of),
        bytes_sent=gossip_bytes,
        **(CORRECTED | {"alone": of == "models", "mean": False}),
    )


def tracking(order: str) -> Case:
    exchanges = 2 if order == "adapt-then-combine" else 1

    def bytes_sent(rounds: int, degree: int, nodes: int, vector: int) -> int:
        return gossip_bytes(exchanges * rounds, degree, nodes, vector, vectors=3 - exchanges)

    equations = oracle_correction.tracking(order)
    return Case(settings={"order": order}, equations=equations, bytes_sent=bytes_sent, **CORRECTED)


def owning(equations: Callable[..., oracle.Equations], vectors: int = 1, **settings: Any) -> Case:
    """A method that takes the local step itself; `equations` takes its settings in their order."""
    return Case(
        settings=settings,
        equations=equations(*settings.values()),
        bytes_sent=partial(gossip_bytes, vectors=vectors),
        optimizers=("decaying",),
        alone=False,
        mean=False,
        brief=True,
    )


def slowmo(gossip: bool, average: str) -> Case:
    exact = average == "exact"
    return Case(
        settings={"every": 3, "slow_momentum": 0.4, "slow_lr": 0.9, "gossip": gossip, "average": average},
        equations=oracle_correction.slowmo(3, 0.4, 0.9, gossip, exact),
        bytes_sent=partial(slowmo_bytes, every=3, gossip=gossip) if exact else gossip_bytes,
        tolerance=1e-5 if exact else None,  # differences of models, divided by the learning rate
        optimizers=("momentum", "adamw"),
        alone=False,
        mean=False,
        brief=True,
    )


def compressed_bytes(
    rounds: int, degree: int, nodes: int, size: int, compression: Any, every: int = 1, messages: int = 1
) -> int:
    """As many bytes to each neighbor as the compressor states, for each of the vectors that a mixing round sends."""
    dtype = torch.float64 if size == 8 * DIMENSION else torch.float32
    stated = compressor_of(compression, Space(DIMENSION, dtype)).bytes
    return gossip_bytes(rounds, degree, nodes, stated, every, messages)


def choco(order: str, gamma: float, compression: Any, C: oracle_compressed.Compression, every: int = 1) -> Case:
    return Case(
        settings={"order": order, "compression": compression, "consensus_step": gamma, "every": every},
        equations=partial(oracle_compressed.choco(order, gamma, C), every=every),
        bytes_sent=partial(compressed_bytes, compression=compression, every=every),
        **CORRECTED,
    )


def compressed(equations: oracle.Equations, messages: int = 1, by_node: bool = False, **settings: Any) -> Case:
    """A method that sends one or two compressed vectors in a round."""
    bytes_sent = partial(compressed_bytes, compression=settings["compression"], messages=messages)
    return Case(settings=settings, equations=equations, bytes_sent=bytes_sent, by_node=by_node, **CORRECTED)


def power_gossip(rank: int, iterations: int, diffusion: float) -> Case:
    """Of the layout's matrices (3, 2) and (1, 5), P or Q in turn; of its two other numbers, all in each round."""

    def bytes_sent(rounds: int, degree: int, nodes: int, size: int) -> int:
        ranks, width = (min(rank, 2), 1), size // DIMENSION
        factors = [ranks[0] * 3 + ranks[1] * 1, ranks[0] * 2 + ranks[1] * 5]
        turns = [factors[turn % 2] for turn in range(rounds * iterations)]
        sent = sum(gossip_bytes(1, degree, nodes, numbers * width) for numbers in turns)
        return sent + rounds * degree * ((2 * width + 7) // 8 * 8)

    return Case(
        settings={"rank": rank, "iterations": iterations, "diffusion": diffusion},
        equations=oracle_compressed.power_gossip(rank, iterations, diffusion, LAYOUTS["many blocks"]),
        bytes_sent=bytes_sent,
        layout=LAYOUTS["many blocks"],
        shapes=1 + iterations % 2,
        **CORRECTED,
    )


def outer(
    equations: Callable[..., oracle.Equations], bytes_sent: Bytes, tolerance: float | None = None, **of: Any
) -> Case:
    """A method that takes an outer step in every third round; `equations` takes its settings in their order."""
    settings = {"every": 3, **of}
    return Case(
        settings=settings,
        equations=equations(*settings.values()),
        bytes_sent=partial(bytes_sent, every=3),
        tolerance=tolerance,
        alone=False,
        mean=False,
        **CORRECTED,
    )


def averaging_bytes(rounds: int, degree: int, nodes: int, size: int, every: int) -> int:
    """An all-reduce in every tau-th round."""
    return ring_all_reduce_bytes(rounds // every, degree, nodes, size)


def sparta(order: str, fraction: float) -> Case:
    def bytes_sent(rounds: int, degree: int, nodes: int, size: int) -> int:
        return gossip_bytes(rounds, degree, nodes, max(1, int(fraction * DIMENSION)) * size // DIMENSION)

    equations = oracle_low_communication.sparta(fraction, order)
    settings = {"fraction": fraction, "order": order}
    return Case(settings=settings, equations=equations, bytes_sent=bytes_sent, **CORRECTED)


def sparseloco(compression: Any, C: oracle_compressed.Compression, gamma: float) -> Case:
    """Two messages of the compressor's size in one."""

    def bytes_sent(rounds: int, degree: int, nodes: int, size: int) -> int:
        dtype = torch.float64 if size == 8 * DIMENSION else torch.float32
        packed = compressor_of(compression, Space(DIMENSION, dtype)).bytes
        return gossip_bytes(rounds, degree, nodes, packed, every=3, vectors=2)

    settings = {"every": 3, "outer_lr": 0.7, "decay": 0.9, "consensus_step": gamma}
    return Case(
        settings={**settings, "compression": compression},
        equations=oracle_low_communication.sparseloco(3, 0.7, 0.9, gamma, C),
        bytes_sent=bytes_sent,
        alone=False,
        mean=False,
        **CORRECTED,
    )


def epidemic(recipients: int, balanced: bool) -> Case:
    """On draws of its own for as many nodes as the graph has."""

    def drawn(nodes: int) -> Topology:
        return named("epidemic", nodes, recipients=min(recipients, nodes - 1), balanced=balanced)

    def bytes_sent(rounds: int, degree: int, nodes: int, size: int) -> int:
        return gossip_bytes(rounds, min(recipients, degree), nodes, size)

    return Case(
        equations=oracle_low_communication.epidemic(drawn),
        bytes_sent=bytes_sent,
        suited=lambda graph: (drawn(graph.nodes), ""),
        **(CORRECTED | {"mean": balanced}),
    )


TOP_3 = {"name": "top-k", "k": 3}
HALF = {"name": "random-k", "fraction": 0.5, "unbiased": True}


def central(
    equations: oracle.Equations,
    compression: Any,
    through: str = "gather",
    optimizer: str | None = None,
    **settings: Any,
) -> Case:
    """A centralized method with compressed messages, one of each compression that is set."""
    sent = [compression, *(value for key, value in settings.items() if key.endswith("compression"))]
    reduced = through == "all-reduce"

    def bytes_sent(rounds: int, degree: int, nodes: int, vector: int) -> int:
        space = Space(DIMENSION, torch.float32 if vector == 4 * DIMENSION else torch.float64)
        sizes = [compressor_of(each, space).bytes for each in sent]
        if reduced:  # all but the 8 bytes that say of which round they are
            return sum(ring_all_reduce_bytes(rounds, degree, nodes, size - 8) for size in sizes)
        return gossip_bytes(rounds, nodes - 1, nodes, sum((size + 7) // 8 * 8 for size in sizes))

    return Case(
        settings={"compression": compression, "through": through, **settings},
        equations=equations,
        bytes_sent=bytes_sent,
        tolerance=1e-6 if reduced else None,
        centralized=True,
        optimizers=(optimizer,) if optimizer else CORRECTED["optimizers"],
        alone=False,
        mean=False,
        brief=True,
    )


CORRECTED: dict[str, Any] = {"optimizers": ("momentum", "adamw"), "brief": True}
TOP = {"name": "top-k", "k": 3}
SHARED = {"name": "random-k", "k": 4}
SAMPLED = {"name": "random-k", "k": 4, "shared": False, "unbiased": True}
SKETCH = {"name": "sketch", "fraction": 0.5, "unbiased": True}
QUANTIZED = {"name": "qsgd", "bits": 4, "block": 8}
SUMMED: dict[str, Any] = {"mean": False, **CORRECTED}

CASES: dict[str, dict[str, Case]] = {
    "dsgd": {
        "atc": dsgd("adapt-then-combine", every=1),
        "atc every 3": dsgd("adapt-then-combine", every=3),
        "cta": dsgd("combine-then-adapt", every=1),
        "cta every 3": dsgd("combine-then-adapt", every=3),
        "awc": dsgd("adapt-while-communicate", every=1),
        "awc every 3": dsgd("adapt-while-communicate", every=3),
    },
    "delayed-dsgd": {"models": delayed(2, "models"), "gradients": delayed(3, "gradients")},
    "hierarchical": {
        "leaders": hierarchical("adapt-then-combine", "leaders", size=2),
        "leaders of 3 cta every 3": hierarchical("combine-then-adapt", "leaders", size=3, every=3),
        "leaders awc": hierarchical("adapt-while-communicate", "leaders", size=2),
        "ranks": hierarchical("adapt-then-combine", "ranks", size=2),
        "ranks awc every 3": hierarchical("adapt-while-communicate", "ranks", size=2, every=3),
        "slices": hierarchical("adapt-then-combine", "slices", size=2),
        "slices of 3 cta": hierarchical("combine-then-adapt", "slices", size=3),
        "slices of 5 awc every 3": hierarchical("adapt-while-communicate", "slices", size=5, every=3),
    },
    "choco": {
        "atc": choco("adapt-then-combine", 0.7, "none", oracle_compressed.everything),
        "atc top-k": choco("adapt-then-combine", 0.2, TOP_3, oracle_compressed.largest(3)),
        "awc top-k": choco("adapt-while-communicate", 0.2, TOP_3, oracle_compressed.largest(3)),
        "atc top-k every 3": choco("adapt-then-combine", 0.2, TOP_3, oracle_compressed.largest(3), every=3),
    },
    "lead": {
        "random half": replace(
            compressed(
                oracle_compressed.lead(oracle_compressed.referenced(HALF), 0.6, 0.3),
                compression=HALF,
                consensus_step=0.6,
                copy_step=0.3,
            ),
            optimizers=("decaying",),
            alone=False,
        ),
    },
    "beer": {
        "int8": compressed(
            oracle_compressed.motef(oracle_compressed.referenced("int8"), 0.4, 1.0),
            messages=2,
            by_node=True,
            compression="int8",
            consensus_step=0.4,
        ),
    },
    "motef": {
        "top-k": replace(
            compressed(
                oracle_compressed.motef(oracle_compressed.referenced(TOP_3), 0.2, 0.3),
                messages=2,
                compression=TOP_3,
                consensus_step=0.2,
                momentum_step=0.3,
            ),
            alone=False,
            mean=False,
        ),
    },
    "deepsqueeze": {
        "top-k": compressed(
            oracle_compressed.deepsqueeze(oracle_compressed.referenced(TOP_3), 0.2),
            compression=TOP_3,
            consensus_step=0.2,
        ),
    },
    "dcd": {
        "bf16": replace(
            compressed(oracle_compressed.dcd(oracle_compressed.referenced("bf16")), compression="bf16"),
            alone=False,
            mean=False,
        ),
    },
    "ecd": {
        "int8": replace(
            compressed(oracle_compressed.ecd(oracle_compressed.referenced("int8")), by_node=True, compression="int8"),
            alone=False,
            mean=False,
        ),
    },
    "power-gossip": {
        "": power_gossip(rank=1, iterations=1, diffusion=1.0),
        "twice, of rank 2": power_gossip(rank=2, iterations=2, diffusion=1.2),
    },
    "gradient-tracking": {
        "mixed": tracking("mixed"),
        "atc": tracking("adapt-then-combine"),
        "awc": tracking("adapt-while-communicate"),
    },
    "d2": {
        "": Case(
            equations=oracle_correction.d2, bytes_sent=gossip_bytes, suited=D2(local=sgd(1.0)).suited, **CORRECTED
        ),
    },
    "exact-diffusion": {
        "": Case(equations=oracle_correction.exact_diffusion, bytes_sent=gossip_bytes, **CORRECTED),
    },
    "qg-dsgdm": {
        form: owning(oracle_correction.quasi_global_momentum, momentum=0.9, mu=0.8, nesterov=form == "nesterov")
        for form in ("nesterov", "heavy ball")
    },
    "qg-dadam": {
        variant: owning(oracle_correction.quasi_global_adam, beta1=0.9, beta2=0.99, epsilon=1e-3, variant=variant)
        for variant in get_args(Variant)
    },
    "decentlam": {"": owning(oracle_correction.decentlam, momentum=0.8)},
    "slowmo": {
        "gossip": slowmo(gossip=True, average="exact"),
        "local": slowmo(gossip=False, average="exact"),
        "without average": slowmo(gossip=True, average="none"),
    },
    "momentum-tracking": {"": owning(oracle_correction.momentum_tracking, vectors=2, momentum=0.8)},
    "gut": {"": owning(oracle_correction.global_update_tracking, mu=0.7)},
    "sgp": {"": push(0), "overlapped": push(1), "three rounds late": push(3)},
    "relay-sgd": {form: relay(form) for form in get_args(Form)},
    "gasloc": {
        of: outer(
            lambda H, lr, gamma, of: oracle_low_communication.gasloc(H, lr, gamma, of == "mixed"),
            gossip_bytes,
            outer_lr=0.8,
            outer_momentum=0.6,
            momentum_of=of,
        )
        for of in ("own", "mixed")
    },
    "noloco": {
        "": outer(oracle_low_communication.noloco, gossip_bytes, outer_lr=0.7, outer_momentum=0.5, pull=0.6),
    },
    "sparta": {
        "atc": sparta("adapt-then-combine", 0.3),
        "awc": sparta("adapt-while-communicate", 0.3),
        "awc, one number": sparta("adapt-while-communicate", 0.005),
    },
    "sparseloco": {
        "": sparseloco("none", oracle_compressed.everything, gamma=1.0),
        "top-k": sparseloco(TOP_3, oracle_compressed.largest(3), gamma=0.2),
    },
    "epidemic": {"local": epidemic(2, balanced=False), "oracle": epidemic(2, balanced=True)},
    "diloco": {
        "": outer(oracle_low_communication.diloco, averaging_bytes, 1e-6, outer_lr=0.7, outer_momentum=0.6),
    },
    "fedavg": {"": outer(oracle_low_communication.fedavg, averaging_bytes, 1e-6)},
    "allreduce": {
        "": Case(equations=oracle.allreduce, bytes_sent=ring_all_reduce_bytes, tolerance=1e-6, centralized=True),
    },
    "ef14": {
        "": central(oracle_central.ef14(coded(TOP)), TOP),
        "low-rank": central(oracle_central.ef14(coded("low-rank")), "low-rank"),
        "random-k by all-reduce": central(oracle_central.ef14(coded(SHARED)), SHARED, through="all-reduce"),
    },
    "ef21": {"": central(oracle_central.ef21_sgdm(coded(TOP)), TOP)},
    "ef21-sgdm": {
        "": central(oracle_central.ef21_sgdm(coded(TOP), 0.7), TOP, momentum=0.7),
        "double": central(oracle_central.ef21_sgdm(coded(TOP), 0.7, double=True), TOP, momentum=0.7, double=True),
    },
    "econtrol": {"": central(oracle_central.econtrol(coded(TOP), 0.2), TOP, optimizer="decaying", control=0.2)},
    "dqsgd": {
        "": central(oracle_central.diana(coded(QUANTIZED), 0.0), QUANTIZED),
        "sketch by all-reduce": central(oracle_central.diana(coded(SKETCH), 0.0), SKETCH, through="all-reduce"),
    },
    "diana": {"": central(oracle_central.diana(coded(QUANTIZED), 0.3), QUANTIZED, shift_rate=0.3)},
    "ec-sgd-diana": {
        "": central(
            oracle_central.ec_sgd_diana(coded(TOP), coded(SAMPLED, "shift"), 0.25),
            TOP,
            shift_compression=SAMPLED,
            shift_rate=0.25,
        ),
    },
}

ALL = [pytest.param(name, case, id=f"{name} {label}") for name, cases in CASES.items() for label, case in cases.items()]
every_case = pytest.mark.parametrize(("name", "case"), ALL)
every_case_that_moves_the_mean = pytest.mark.parametrize(
    ("name", "case"), [param for param in ALL if param.values[1].mean]
)
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)

DECAYING_MOMENTUM = {"momentum": 0.9, "weight_decay": 0.1}
OPTIMIZERS = {
    "plain": sgd(0.05),
    "momentum": sgd(0.02, **DECAYING_MOMENTUM),
    "nesterov": sgd(0.02, nesterov=True, **DECAYING_MOMENTUM),
    "decaying": sgd(0.02, weight_decay=0.1),
    "adamw": LocalOptimizer(torch.optim.AdamW, {"lr": 0.05, "weight_decay": 0.1}),
}
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def with_optimizers(
    names: Sequence[str] = tuple(OPTIMIZERS),
    where: Callable[[Case], bool] = lambda case: True,
    **axes: Mapping[str, Any],
) -> pytest.MarkDecorator:
    """Every case with each of some optimizers and each combination of further parameters; of brief ones the last."""

    def combinations() -> Iterator[Any]:
        for param in ALL:
            name, case = param.values
            if not where(case):
                continue
            last = {axis: dict([list(values.items())[-1]]) for axis, values in axes.items()}
            taken = last if case.brief else axes
            for optimizer in case.among(names)[-1:] if case.brief else case.among(names):
                for labels in product(*taken.values()):
                    values = [axes[axis][label] for axis, label in zip(axes, labels, strict=True)]
                    what = "-".join([str(param.id), optimizer, *labels])
                    yield pytest.param(name, case, OPTIMIZERS[optimizer], *values, id=what)

    return pytest.mark.parametrize(("name", "case", "local", *axes), list(combinations()))


def built(name: str, case: Case, local: LocalOptimizer | None = None) -> Algorithm:
    """With the case's own optimizer unless given."""
    return ALGORITHMS[name](local=local or OPTIMIZERS[case.among(["momentum"])[0]], **case.settings)


def built_alone(name: str, case: Case, local: LocalOptimizer | None = None) -> Algorithm:
    """For one node, which is a group by itself."""
    algorithm = built(name, case, local)
    return replace(algorithm, group=1) if case.size > 1 else algorithm


def common_start(problem: Quadratics) -> oracle.Matrix:
    """All rows equal, as a run begins."""
    return np.repeat(problem.starts()[:1], problem.nodes, axis=0)


def test_every_algorithm_is_tested() -> None:
    assert CASES.keys() == ALGORITHMS.keys()


PLACES = {
    "ring-9 plain": ("ring-9", {}),
    "ring-9 nesterov": ("ring-9", {**DECAYING_MOMENTUM, "nesterov": True}),
    "star-32": ("star-32", DECAYING_MOMENTUM),
    "tree-31": ("tree-31", DECAYING_MOMENTUM),
    "torus-4x8": ("torus-4x8", DECAYING_MOMENTUM),
    "ring-9": ("ring-9", DECAYING_MOMENTUM),
    "social-32": ("social-32", DECAYING_MOMENTUM),
}


def places(case: Case) -> dict[str, tuple[str, dict[str, float]]]:
    """Graph and options that a case is run with, by name: a brief one in one place, a small one."""
    if not case.brief:
        return PLACES
    on = "ring-9" if case.centralized else "social-15"
    return {on: (on, DECAYING_MOMENTUM)}


@pytest.mark.parametrize(
    ("name", "case", "on", "options"),
    [
        pytest.param(*param.values, *place, id=f"{param.id}-{name}")
        for param in ALL
        for name, place in places(param.values[1]).items()
    ],
)
def test_it_computes_its_equations(name: str, case: Case, on: str, options: dict[str, float]) -> None:
    check_equations(name, case, on, options)


@every_case
def test_it_computes_its_equations_over_a_drop_of_the_learning_rate(name: str, case: Case) -> None:
    """A buffer that is kept in the wrong units is ten times too large or too small from there on."""
    check_equations(name, case, "ring-9", DECAYING_MOMENTUM, drop=17)


def check_equations(name: str, case: Case, on: str, options: dict[str, float], drop: int | None = None) -> None:
    if case.optimizers == ("decaying",):
        options = {"weight_decay": 0.1}
    topology, rounds, lr = case.on(graph(on)), 50, 0.02
    problem = Quadratics.draw(topology.nodes, noisy_rounds=rounds)
    start = common_start(problem)
    algorithm = built(name, case, sgd(lr, drop=drop, **options))
    run = simulate(algorithm, topology, problem.answers(), start, rounds, layout=case.layout)
    steps = oracle.Sgd(lr=lr, drop=drop, **options)
    expected = case.equations(start, case.matrix(graph(on)), problem.gradients(), steps, rounds)
    np.testing.assert_allclose(run.final, expected, rtol=0, atol=1e-10 if case.size == 1 else 1e-12)


@with_optimizers()
def test_no_answer_is_kept_beyond_its_step(name: str, case: Case, local: LocalOptimizer) -> None:
    """Drivers use the memory of gradients and received payloads again: a State that holds an alias would change."""
    topology = case.on(graph("ring-8"))
    problem = Quadratics.draw(topology.nodes, noisy_rounds=9)
    clean, poisoned = (
        simulate(
            built(name, case, local),
            topology,
            problem.answers(),
            common_start(problem),
            9,
            layout=LAYOUTS["many blocks"],
            poison=poison,
        )
        for poison in (False, True)
    )
    assert all(same(clean.states[node], poisoned.states[node]) for node in clean.states)
    assert np.isfinite(clean.models).all()


@every_case
def test_it_is_deterministic(name: str, case: Case) -> None:
    topology = case.on(graph("ring-8" if case.brief else "tree-31"))
    problem = Quadratics.draw(topology.nodes, noisy_rounds=9)
    algorithm, start = built(name, case), common_start(problem)
    one, other = (simulate(algorithm, topology, problem.answers(), start, 9) for _ in range(2))
    assert all(same(one.states[node], other.states[node]) for node in one.states)
    assert one.models.tobytes() == other.models.tobytes()


@every_case
def test_the_flat_vector_stays_the_same_tensor(name: str, case: Case) -> None:
    """The loop, the model's parameters and the optimizer hold views of x: a step that puts another in its place would
    go on training what nobody looks at."""
    problem = Quadratics.draw(1)
    x = torch.from_numpy(problem.starts()[0])
    algorithm = built_alone(name, case)
    peer = Peer(0, 1, lambda turn: alone(1).row(0), LAYOUTS["many blocks"])
    state, driver = algorithm.init(x, peer), LockstepDriver(problem.answers())
    for peer.round in range(4):
        before = x.clone()
        driver.advance({0: algorithm.step(state, peer)}, peer.round)
        assert state.x is x
        assert not torch.equal(x, before)


ROUNDS = 7


def dry(
    algorithm: Algorithm,
    topology: Topology,
    node: int,
    rounds: int,
    dtype: torch.dtype,
    layout: Layout = LAYOUTS["one block"],
) -> DryNode:
    """A dry run of some rounds of a node."""
    made = DryNode(topology.nodes)
    peer = peer_at(topology, node, layout)
    state = algorithm.init(torch.empty(DIMENSION, dtype=dtype, device="meta"), peer)
    for peer.round in range(rounds):
        made.advance(algorithm.step(state, peer))
    return made


def few(case: Case) -> Topology:
    """Four nodes on a path, or as many as two groups have."""
    return case.on(graph("path-4" if case.size == 1 else "path-2"))


def simulate_few(case: Case, algorithm: Algorithm, dtype: torch.dtype, layout: Layout) -> Run:
    """Some rounds of a few nodes, in lockstep."""
    topology = few(case)
    problem = Quadratics.draw(topology.nodes, noisy_rounds=ROUNDS)
    starts = torch.from_numpy(common_start(problem)).to(dtype)
    return simulate(algorithm, topology, problem.answers(dtype), starts, ROUNDS, layout=layout)


def run_one(world: World, case: Case, algorithm: Algorithm, dtype: torch.dtype, layout: Layout, epoch: int = 1) -> Run:
    """The same rounds of the node of one rank, over its links."""
    topology = few(case)
    problem = Quadratics.draw(topology.nodes, noisy_rounds=ROUNDS)
    starts = torch.from_numpy(common_start(problem)).to(dtype)
    largest = dry(algorithm, topology, world.rank, ROUNDS, dtype).largest_frame
    driver = world.driver(topology, problem.gradient(world.rank, dtype), run=7, epoch=epoch, largest=largest)
    try:
        return play(algorithm, driver, topology, starts, ROUNDS, layout)
    finally:
        driver.close()


@pytest.mark.parametrize("wire", WIRES)
@with_optimizers(("momentum", "adamw"), dtype=DTYPES, layout=LAYOUTS)
def test_real_ranks_give_the_same_bits(
    name: str, case: Case, wire: str, local: LocalOptimizer, dtype: torch.dtype, layout: Layout
) -> None:
    algorithm = built(name, case, local)
    simulated = simulate_few(case, algorithm, dtype, layout)
    runs = on_ranks(few(case).nodes, lambda world: run_one(world, case, algorithm, dtype, layout), wire=wire)
    for rank, run in enumerate(runs):
        assert same(run.states[rank], simulated.states[rank], case.tolerance)
        assert run.bytes_sent == {rank: simulated.bytes_sent[rank]}


@pytest.mark.parametrize("on", ["path-4", "star-32"])
@with_optimizers(["momentum"], dtype=DTYPES)
def test_bytes_are_known_before_the_run(
    name: str, case: Case, local: LocalOptimizer, dtype: torch.dtype, on: str
) -> None:
    """Lockstep, a dry run and the formula agree; that ranks send as much as lockstep is asserted where ranks run."""
    on = "ring-8" if case.brief and on == "star-32" else on
    topology, rounds = case.on(graph(on)), 8
    problem = Quadratics.draw(topology.nodes)
    algorithm, starts = built(name, case, local), torch.from_numpy(common_start(problem)).to(dtype)
    run = simulate(algorithm, topology, problem.answers(dtype), starts, rounds, layout=case.layout)
    for node in range(topology.nodes):
        degree, size = len(topology.neighbors(node)), DIMENSION * dtype.itemsize
        formula = case.bytes_sent(rounds, degree, topology.nodes, size)
        foretold = dry(algorithm, topology, node, rounds, dtype, case.layout).bytes_sent
        assert (run.bytes_sent[node], foretold) == (formula, formula)


@every_case
def test_payloads_have_the_same_shapes_in_every_round(name: str, case: Case) -> None:
    """Receivers allocate before the run, and what the sender's frame holds is checked against the receiver's own."""
    topology = case.on(graph("ring-8" if case.brief else "tree-31"))
    problem = Quadratics.draw(topology.nodes)
    run = simulate(built(name, case), topology, problem.answers(), common_start(problem), 7, layout=case.layout)
    for posted in run.posted:
        assert len({str(shapes) for shapes in posted.values()}) == 1
    assert len({str(posted) for posted in run.posted if any(posted.values())}) <= case.shapes


@with_optimizers(where=lambda case: case.alone, layout=LAYOUTS)
def test_one_node_alone_is_plain_torch(name: str, case: Case, local: LocalOptimizer, layout: Layout) -> None:
    problem, rounds = Quadratics.draw(1, noisy_rounds=20), 20
    run = simulate(built_alone(name, case, local), alone(1), problem.answers(), problem.starts(), rounds, layout=layout)
    expected, optimizer_state = trained_by_torch(problem, layout, local, rounds)
    assert torch.equal(run.states[0].x, expected)
    local_state = kept(run.states[0].local)
    assert local_state.keys() == optimizer_state.keys()
    assert all(
        torch.equal(torch.as_tensor(local_state[key]), torch.as_tensor(optimizer_state[key])) for key in local_state
    )


def trained_by_torch(
    problem: Quadratics, layout: Layout, local: LocalOptimizer, rounds: int
) -> tuple[Tensor, dict[str, Any]]:
    """The parameters, put together, and the optimizer's state after an ordinary torch loop over separate tensors."""
    start, gradient = torch.from_numpy(problem.starts()[0]), problem.gradient(0)
    parameters = [torch.nn.Parameter(block.of(start).clone()) for block in layout]
    optimizer = local.factory(parameters, **local.options)
    for _ in range(rounds):
        answer: LossAndGradient = gradient(torch.cat([parameter.detach().reshape(-1) for parameter in parameters]))
        for parameter, block in zip(parameters, layout, strict=True):
            parameter.grad = block.of(answer.gradient).clone()
        optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in parameters]), kept(optimizer.state_dict()["state"])


@pytest.mark.parametrize("lr", [0.05, 1e4], ids=["converging", "diverging"])
@pytest.mark.parametrize("on", ["ring-8", "tree-31"])
@every_case_that_moves_the_mean
def test_the_mean_moves_by_the_mean_gradient(name: str, case: Case, on: str, lr: float) -> None:
    """Gossip keeps the mean, so in each round it moves by exactly -lr mean(g), to rounding, even on the way to 1e60."""
    topology, rounds = case.on(graph("tree-7" if case.brief and on == "tree-31" else on)), 20
    problem = Quadratics.draw(topology.nodes, noisy_rounds=rounds)
    recorders = [Recorder.of(gradient) for gradient in problem.answers()]
    run = simulate(built(name, case, sgd(lr)), topology, recorders, common_start(problem), rounds)
    grads = np.stack([torch.stack(recorder.answers).numpy() for recorder in recorders], axis=1)
    means = run.models.mean(axis=1)
    error = np.abs(means[1:] - (means[:-1] - lr * grads.mean(axis=1))).max(axis=1)
    scale = np.maximum(np.abs(run.models[:-1]).max(axis=(1, 2)), lr * np.abs(grads).max(axis=(1, 2)))
    assert (error <= 1e-12 * scale).all()
    assert (scale[-1] > 1e60) == (lr == 1e4)

"""Four ranks: where they start, what they share for a while, how they go on, and how they end."""

import copy
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import networkx as nx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import Optimizer

from decentral.errors import ConfigError, LostNeighborError
from decentral.training.objective import flat
from decentral.transport.world import World
from decentral.wrapping.session import Session
from tests.contract.ranks import on_ranks
from tests.wrapping.features import FEATURES, bare_sgd, batches, sgd
from tests.wrapping.methods import CENTRAL, COMPRESSED, CORRECTED, METHODS, OWNING, SLOW, SUMMED, Drifting, TwoGradients

NODES = 4


def wrapped_on_ranks(
    loop: Callable[[World, Session, nn.Module, Optimizer], Any],
    feature: str = "ordinary",
    optimizer: Callable[[nn.Module], Optimizer] = sgd,
    **arguments: Any,
) -> list[Any]:
    """`loop(world, session, model, optimizer)` on each rank, its model drawn by the rank's own number."""

    models = [drawn(feature, seed) for seed in range(NODES)]  # here: the threads share torch's one generator

    def work(world: World) -> Any:
        session, model = Session(world), models[world.rank]
        try:
            return loop(world, session, *session.wrap(model, optimizer(model), **arguments))
        finally:
            session.close()

    return on_ranks(NODES, work)


def drawn(feature: str, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FEATURES[feature].model()


def trained(model: nn.Module, optimizer: Optimizer, seed: int) -> None:
    for inputs, targets in batches(seed=seed):
        mse_loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.filterwarnings("ignore:.*stay each node's own")
def test_all_start_from_node_0_unless_told_otherwise() -> None:
    def start(world: World, session: Session, model: nn.Module, optimizer: Optimizer) -> Tensor:
        return torch.cat([tensor.float().reshape(-1) for tensor in model.state_dict().values()])

    alike = wrapped_on_ranks(start, "batch statistics")
    own = wrapped_on_ranks(start, "batch statistics", synchronize=False)
    assert all(torch.equal(model, own[0]) for model in alike)
    assert not torch.equal(own[1], own[0])


@pytest.mark.parametrize(
    "algorithm", [COMPRESSED["beer"], COMPRESSED["choco"], COMPRESSED["dcd"]], ids=lambda method: str(method["name"])
)
def test_a_method_that_knows_the_first_models_needs_them_alike(algorithm: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"found synchronize=False; .* first models"):
        wrapped_on_ranks(lambda *_: None, algorithm=algorithm, synchronize=False)


def test_choco_from_zeros_may_start_from_models_of_their_own() -> None:
    made = wrapped_on_ranks(lambda *_: 1, algorithm=COMPRESSED["choco"] | {"start": "zero"}, synchronize=False)
    assert made == [1] * NODES


@pytest.mark.filterwarnings("ignore:.*stay each node's own")
@pytest.mark.parametrize("buffers", ["local", "average"])
def test_the_average_is_lent_for_the_length_of_the_block(buffers: Any) -> None:
    def loop(world: World, session: Session, model: nn.Module, optimizer: Optimizer) -> Any:
        for _ in range(1 + world.rank):  # so that counters of batches differ
            model(torch.randn(8, 5, generator=torch.Generator().manual_seed(world.rank))).sum()
        trained(model, optimizer, seed=world.rank)
        own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        with session.wrapped(model).averaged(10.0), torch.inference_mode():
            lent = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        after = model.state_dict()
        assert all(torch.equal(after[name], own[name]) for name in own)
        trained(model, optimizer, seed=world.rank)
        return own, lent

    results = wrapped_on_ranks(loop, "batch statistics", buffers=buffers)
    for name in results[0][0]:
        owns, lents = [own[name] for own, _ in results], [lent[name] for _, lent in results]
        kept = name.endswith("num_batches_tracked") or (buffers == "local" and "running" in name)
        mean = torch.stack(owns).double().mean(0)
        for own, lent in zip(owns, lents, strict=True):
            torch.testing.assert_close(lent.double(), own.double() if kept else mean, rtol=0, atol=1e-6)
        if name != "0.bias":  # before a BatchNorm it has no gradient
            assert kept or not torch.equal(owns[0], lents[0])


def test_running_statistics_that_stay_local_are_told_once() -> None:
    with pytest.warns(UserWarning, match=r"1\.running_mean and other buffers stay each node's own") as told:
        wrapped_on_ranks(lambda *_: None, "batch statistics")
    assert len([one for one in told if "running_mean" in str(one.message)]) == 1


@pytest.mark.parametrize("algorithm", METHODS.values(), ids=METHODS)
def test_an_overflow_at_one_node_does_not_stop_the_others(algorithm: Mapping[str, Any]) -> None:
    """GradScaler skips the step of an optimizer whose gradients are infinite. The neighbors wait for this node all the
    same, so it must take part; with its own gradient left out, and no infinity in anybody's model."""

    def loop(world: World, session: Session, model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        for number, (inputs, targets) in enumerate(batches(seed=world.rank)):
            bad = world.rank == 1 and number in (2, 3)
            scaler.scale(mse_loss(model(inputs), targets) * (torch.inf if bad else 1)).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        assert scaler.get_scale() == (1.0 if world.rank == 1 else 4.0)
        return dict(model.state_dict())

    for model in wrapped_on_ranks(loop, algorithm=algorithm):
        assert all(tensor.isfinite().all() for tensor in model.values())


@pytest.mark.parametrize("algorithm", CENTRAL.values(), ids=CENTRAL)
def test_an_overflow_at_one_node_leaves_the_same_model_at_all(algorithm: Mapping[str, Any]) -> None:
    """Symptom: where the common step was zero in a whole tensor, as top-k's often is, the node without a gradient took
    that tensor for unused, and its optimizer left it out; momentum and weight decay moved it at the other nodes."""

    def loop(world: World, session: Session, model: nn.Module, optimizer: Optimizer) -> Tensor:
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        for number, (inputs, targets) in enumerate(batches(seed=world.rank)):
            bad = world.rank == 1 and number in (2, 3)
            scaler.scale(mse_loss(model(inputs), targets) * (torch.inf if bad else 1)).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])

    def decaying(model: nn.Module) -> Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)

    first, *others = wrapped_on_ranks(loop, optimizer=decaying, algorithm=algorithm)
    assert first.isfinite().all()
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize("algorithm", ["dsgd", "allreduce", {"name": Drifting}], ids=str)
def test_the_gradients_stay_the_users(algorithm: Any) -> None:
    """Whatever the algorithm steps with: they are there to look at, and to be added to, until zero_grad."""

    def loop(world: World, session: Session, model: nn.Module, optimizer: Optimizer) -> None:
        for inputs, targets in batches(seed=world.rank):
            mse_loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            own = [(parameter.grad, parameter.grad.clone()) for parameter in model.parameters()]  # type: ignore[union-attr]
            optimizer.step()
            for parameter, (held, value) in zip(model.parameters(), own, strict=True):
                assert parameter.grad is held
                assert torch.equal(held, value)

    wrapped_on_ranks(loop, algorithm=algorithm)


CHECKPOINTED: dict[str, dict[str, Any]] = {
    **METHODS,
    "dsgd every fourth round": {"name": "dsgd", "every": 4},  # of which the sixth, where it is left, is none
    "dsgd in bfloat16": {"name": "dsgd", "compression": "bf16"},
    "a memory of its own": {"name": Drifting},
    "two gradients": {"name": TwoGradients},
    "sgp overlapped": SUMMED["sgp overlapped"],
    **{name: (CORRECTED | OWNING | SLOW)[name] for name in ("tracking adapt-while-communicate", "gut", "slowmo")},
    **{name: CENTRAL[name] for name in ("ef21-sgdm", "ec-sgd-diana")},
}


@pytest.mark.parametrize("algorithm", CHECKPOINTED.values(), ids=CHECKPOINTED)
def test_a_resumed_run_is_the_uninterrupted_one(algorithm: Mapping[str, Any]) -> None:
    """Through the three state dicts, in the round where it was left: local steps and schedules depend on its number."""

    fresh_models = [drawn("ordinary", 100 + rank) for rank in range(NODES)]
    made = bare_sgd if algorithm in OWNING.values() else sgd

    def loop(world: World, session: Session, model: nn.Module, optimizer: Optimizer) -> tuple[Any, Any]:
        trained(model, optimizer, world.rank)
        from_there = session.wrapped(optimizer).state_dict()
        saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        inner = copy.deepcopy(optimizer.state_dict())
        trained(model, optimizer, 10 + world.rank)
        fresh = fresh_models[world.rank]
        again, optimizer_again = session.wrap(fresh, made(fresh), algorithm=algorithm)
        again.load_state_dict(saved)
        optimizer_again.load_state_dict(inner)
        session.wrapped(again).load_state_dict(from_there)
        trained(again, optimizer_again, 10 + world.rank)
        return dict(model.state_dict()), dict(again.state_dict())

    for uninterrupted, resumed in wrapped_on_ranks(loop, optimizer=made, algorithm=algorithm):
        assert all(torch.equal(uninterrupted[name], resumed[name]) for name in uninterrupted)


def test_a_lost_neighbor_ends_the_step_of_those_that_wait_for_it() -> None:
    def loop(world: World, session: Session, model: nn.Module, optimizer: Optimizer) -> str:
        for number, (inputs, targets) in enumerate(batches()):
            if world.rank == 2 and number == 3:
                return "gone"
            mse_loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            try:
                optimizer.step()
            except LostNeighborError as error:
                with pytest.raises(ConfigError, match=r"round [34] failed"):
                    optimizer.step()
                return str(error)
            optimizer.zero_grad()
        return "done"

    told = wrapped_on_ranks(loop)
    assert told[2] == "gone"
    assert told[1].startswith("node 1 lost node 2 in round 3")
    assert told[3].startswith("node 3 lost node 2 in round 3")
    assert told[0].startswith(("node 0 lost node 1", "node 0 lost node 3"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"algorithm": "dsgd"}, {"algorithm": {"name": "dsgd", "every": 2}}),
        ({"topology": "ring"}, {"topology": "complete"}),
        ({"topology": "ring"}, {"topology": nx.path_graph(NODES)}),
        ({"buffers": "local"}, {"buffers": "average"}),
    ],
    ids=["algorithm", "topology", "graph", "buffers"],
)
def test_ranks_that_wrap_differently_are_told(one: dict[str, Any], other: dict[str, Any]) -> None:
    def work(world: World) -> str:
        session = Session(world)
        model = FEATURES["ordinary"].model()
        try:
            with suppress(LostNeighborError):  # of those that had begun to wait for node 3
                session.wrap(model, sgd(model), **(other if world.rank == 3 else one))
        except ConfigError as error:
            return str(error)
        finally:
            session.close()
        return ""

    told = on_ranks(NODES, work, timeout_s=3.0)
    assert told[3].startswith("node 3 wraps another model, algorithm or topology than node 0")
    assert told[:3] == ["", "", ""]


def test_a_graph_of_ones_own_and_two_models_at_once() -> None:
    """As a generator and a discriminator are: each has links and rounds of its own."""
    graph = nx.path_graph(NODES)
    nx.set_edge_attributes(graph, 0.25, "weight")

    seconds = [drawn("ordinary", 100 + rank) for rank in range(NODES)]

    def loop(world: World, session: Session, model: nn.Module, optimizer: Optimizer) -> tuple[Tensor, Tensor]:
        second = seconds[world.rank], sgd(seconds[world.rank])
        other, others = session.wrap(*second, topology={"name": graph, "weights": "given"})
        trained(model, optimizer, world.rank)
        trained(other, others, world.rank)
        return flat(model), flat(other)

    results = wrapped_on_ranks(loop)
    for which in (0, 1):
        assert not torch.equal(results[0][which], results[2][which])
    assert not torch.equal(results[0][0], results[0][1])

"""What cannot work is refused in one line that says what to do, and never trains in silence."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim import SGD, Optimizer

from decentral.algorithms.algorithm import Algorithm, State
from decentral.errors import ConfigError
from decentral.peer import Peer
from decentral.wrapping.session import Session
from tests.wrapping.features import FEATURES, batches, closure, lbfgs, mlp, ordinary, sgd
from tests.wrapping.methods import Drifting


def double_and_half() -> nn.Module:
    model = mlp()
    model[2].to(torch.bfloat16)  # type: ignore[index]
    return model


UNFIT: dict[str, tuple[Callable[[], tuple[nn.Module, Optimizer]], str]] = {
    "another model's optimizer": (
        lambda: (mlp(), sgd(mlp())),
        "4 of the optimizer's 4 parameters are not the model's; make the optimizer from the parameters of the model",
    ),
    "mixed dtypes": (
        lambda: (model := double_and_half(), sgd(model)),
        r"of dtypes float32 \(2\), bfloat16 \(2\); one is required: convert the model with model.to\(dtype\)",
    ),
    "all frozen": (
        lambda: (model := mlp().requires_grad_(False), sgd(model)),
        "holds no parameter with requires_grad; there is nothing to train",
    ),
    "complex": (
        lambda: (model := nn.Linear(2, 2, dtype=torch.complex64), sgd(model)),
        "weight is torch.complex64; real floating-point numbers are required",
    ),
    "lazy": (
        lambda: (model := nn.LazyLinear(2), sgd(model)),
        "parameter weight has no shape yet; run the model once",
    ),
    "elsewhere": (
        lambda: (model := nn.Linear(2, 2, device="meta"), sgd(model)),
        "found parameters on meta; links carry the CPU's memory only",
    ),
}


@pytest.mark.parametrize(("made", "told"), UNFIT.values(), ids=UNFIT)
def test_models_and_optimizers_that_do_not_fit(
    made: Callable[[], tuple[nn.Module, Optimizer]], told: str, session: Session
) -> None:
    with pytest.raises(ConfigError, match=told):
        session.wrap(*made())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"algorithm": "dsdg"}, "algorithm.name: unknown name 'dsdg'; did you mean 'dsgd'?"),
        ({"algorithm": {"name": "dsgd", "evry": 2}}, "algorithm.evry: unknown key; did you mean 'every'?"),
        ({"algorithm": {"name": "dsgd", "every": 0}}, "algorithm.every: found 0; required: an integer, at least 1"),
        ({"algorithm": {"name": Drifting, "decoy": 2}}, "algorithm.decoy: unknown key; did you mean 'decay'?"),
        ({"algorithm": {"name": Drifting, "decay": "x"}}, "algorithm.decay: "),
        ({"algorithm": nn.Linear}, "algorithm: Linear is <class"),
        ({"algorithm": "ddp"}, "'ddp' is torch's DistributedDataParallel itself"),
        ({"algorithm": "nowhere:Method"}, "algorithm: no module 'nowhere'"),
        ({"topology": "rink"}, "did you mean 'ring'?"),
        ({"topology": "./no.py"}, "no file ./no.py"),
        ({"topology": nx.path_graph(3)}, "the given graph"),
        ({"topology": {"name": nx.path_graph(1), "hub": 2}}, "found the option 'hub'; a graph that is given takes"),
        ({"topology": {"name": "ring", "weights": "heavy"}}, "topology.weights: unknown value 'heavy'"),
        (
            {"algorithm": "relay-sgd", "topology": {"name": "tree", "weights": "uniform"}},
            "topology.weights: found uniform; RelaySGD uses no mixing weights",
        ),
        ({"compression": "top_k"}, "algorithm.compression.name: unknown name 'top_k'; did you mean 'top-k'?"),
        ({"compression": "top-k"}, "algorithm.compression: found top-k, and dsgd sends the models themselves"),
        ({"algorithm": "allreduce", "compression": "bf16"}, "algorithm.compression: unknown key"),
        ({"algorithm": "diana", "compression": "sign"}, "algorithm.compression: found sign of"),
        ({"buffers": "sum"}, "found buffers 'sum'; required: 'local' or 'average'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",  # a class's text has its address
)
def test_arguments(arguments: dict[str, Any], told: str, session: Session) -> None:
    model = mlp()
    with pytest.raises(ConfigError) as refused:
        session.wrap(model, sgd(model), **arguments)
    assert told in str(refused.value)


def test_an_optimizer_that_a_method_would_ignore(session: Session) -> None:
    model = mlp()
    with pytest.raises(ConfigError, match=r"optimizer: found momentum=0.9; QuasiGlobalMomentum takes the local step"):
        session.wrap(model, SGD(model.parameters(), lr=0.1, momentum=0.9), algorithm="qg-dsgdm")
    with pytest.raises(ConfigError, match="optimizer: found AdamW; GlobalUpdateTracking takes"):
        session.wrap(model, torch.optim.AdamW(model.parameters()), algorithm="gut")


def test_a_method_that_divides_by_the_rate_takes_one_rate(session: Session) -> None:
    model = mlp()
    groups = [{"params": [parameter], "lr": 0.1 * (number + 1)} for number, parameter in enumerate(model.parameters())]
    wrapped, optimizer = session.wrap(model, SGD(groups), algorithm="qg-dsgdm")
    inputs, targets = next(batches())
    mse_loss(wrapped(inputs), targets).backward()
    with pytest.raises(ConfigError, match=r"groups have learning rates 0.1, 0.2, 0.3, 0.4; this algorithm needs one"):
        optimizer.step()


def test_twice(session: Session) -> None:
    model = mlp()
    _, optimizer = session.wrap(model, sgd(model))
    for again in (model, nn.Sequential(model), model[0]):  # type: ignore[index]
        with pytest.raises(ConfigError, match="this model, or a part of it, is wrapped already"):
            session.wrap(again, sgd(again))
    other = mlp()
    with pytest.raises(ConfigError, match="this optimizer is wrapped already"):
        session.wrap(other, optimizer)


def unfrozen(model: Any, optimizer: Any) -> None:
    model[0].bias.requires_grad_(True)


def added(model: Any, optimizer: Any) -> None:
    model.append(nn.Linear(1, 1))
    optimizer.inner.add_param_group({"params": list(model[3].parameters())})


def converted(model: Any, optimizer: Any) -> None:
    model.double()


def given_other_memory(model: Any, optimizer: Any) -> None:
    model[0].weight.data = torch.zeros(7, 5)


def assigned(model: Any, optimizer: Any) -> None:
    model.load_state_dict(FEATURES["ordinary"].start()[0].state_dict(), assign=True)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (unfrozen, "0.bias was added to the optimizer or unfrozen after decentral.wrap"),
        (added, "3.weight was added to the optimizer or unfrozen after decentral.wrap"),
        (converted, "parameter 0.weight has new memory since decentral.wrap"),
        (given_other_memory, "parameter 0.weight has new memory since decentral.wrap"),
        (assigned, "parameter 0.weight was replaced after decentral.wrap"),
    ],
)
def test_changes_after_wrapping(change: Callable[[Any, Any], None], told: str, session: Session) -> None:
    """Any of these would leave a parameter out of the vector: trained or not, it would never be exchanged."""
    model = mlp()
    model[0].bias.requires_grad_(False)  # type: ignore[index]
    model, optimizer = session.wrap(model, sgd(model))
    ordinary(model, optimizer)
    change(model, optimizer)
    with pytest.raises(ConfigError, match=told):
        model(next(batches())[0])


def test_a_group_added_after_wrapping(session: Session) -> None:
    model = mlp()
    _, optimizer = session.wrap(model, sgd(model))
    with pytest.raises(ConfigError, match="add all groups before wrapping"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})


def test_an_optimizer_that_evaluates_the_loss_itself(session: Session) -> None:
    model = mlp()
    model, optimizer = session.wrap(model, lbfgs(model))
    with pytest.raises(ConfigError, match=r"LBFGS evaluates the loss itself; use optimizer.step\(closure\)"):
        ordinary(model, optimizer)
    other = mlp()
    other, optimizer = session.wrap(other, lbfgs(other), algorithm="allreduce")
    with pytest.raises(ConfigError, match="evaluates this node's loss itself, but the algorithm steps with another"):
        closure(other, optimizer)


CTA = {"name": "dsgd", "order": "combine-then-adapt"}


def test_a_gradient_at_the_wrong_point(session: Session) -> None:
    """A method that takes its gradient elsewhere than where the model was would use another's in silence."""
    model = mlp()
    model, optimizer = session.wrap(model, sgd(model), algorithm=Drifting)
    inputs, targets = next(batches())
    model.eval()
    mse_loss(model(inputs), targets).backward()
    with pytest.raises(ConfigError, match="Drifting moves the model before its gradient, but no forward pass"):
        optimizer.step()


def test_the_way_out_is_to_say_where_a_round_begins(session: Session) -> None:
    plain = FEATURES["ordinary"].start()
    wrapped = session.wrap(*FEATURES["ordinary"].start(), algorithm=CTA)
    for model, optimizer in (plain, wrapped):
        model.eval()
        for inputs, targets in batches():
            if optimizer is wrapped[1]:
                wrapped[1].begin_round()
            mse_loss(model(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert all(map(torch.equal, plain[0].parameters(), wrapped[0].parameters()))


def test_saving_within_a_round(session: Session) -> None:
    model = mlp()
    model, optimizer = session.wrap(model, sgd(model))
    model(next(batches())[0])
    with pytest.raises(ConfigError, match=r"cannot be saved within a round.*after optimizer.step\(\)"):
        session.wrapped(optimizer).state_dict()


def test_checkpoints_of_others(session: Session) -> None:
    model, other = mlp(), mlp()
    _, first = session.wrap(model, sgd(model))
    _, second = session.wrap(other, sgd(other), algorithm=CTA)
    saved = session.wrapped(first).state_dict()
    with pytest.raises(ConfigError, match=r"found a checkpoint with method .DSGD.order='adapt-then-combine'"):
        session.wrapped(second).load_state_dict(saved)
    with pytest.raises(ConfigError, match="found a checkpoint with node 3; required: 0"):
        session.wrapped(first).load_state_dict({**saved, "node": 3})
    with pytest.raises(ConfigError, match=r"is not one that decentral.wrap returned"):
        session.wrapped(SGD(mlp().parameters(), 0.1))


@dataclass(slots=True)
class Holding(State):
    graph: Any


@dataclass(frozen=True, kw_only=True)
class Unsavable(Algorithm):
    def init(self, x: Tensor, peer: Peer) -> Holding:
        return Holding(x, self.local.bind(x, peer.layout), nx.path_graph(2))

    async def step(self, state: Holding, peer: Peer) -> Tensor:  # type: ignore[override]
        loss, gradient = await peer.gradient(state.x)
        state.local.step(gradient)
        return loss


@dataclass(frozen=True, kw_only=True)
class Replacing(Algorithm):
    async def step(self, state: State, peer: Peer) -> Tensor:
        loss, gradient = await peer.gradient(state.x)
        state.x = state.x - gradient
        return loss


def test_what_an_algorithm_must_not_do(session: Session) -> None:
    model = mlp()
    _, optimizer = session.wrap(model, sgd(model), algorithm=Unsavable)
    with pytest.raises(ConfigError, match=r"state\.graph is a Graph; tensors and numbers can be saved"):
        session.wrapped(optimizer).state_dict()
    model = mlp()
    with pytest.raises(TypeError, match=r"Replacing replaced state\.x; it must be updated in place"):
        ordinary(*session.wrap(model, sgd(model), algorithm=Replacing))


def test_after_the_end(session: Session, tmp_path: Path) -> None:
    """The model stays what it was and can be trained on by itself, or wrapped again."""
    model = mlp()
    model, optimizer = session.wrap(model, sgd(model))
    ordinary(model, optimizer)
    session.close()
    inputs, targets = next(batches())
    mse_loss(model(inputs), targets).backward()
    with pytest.raises(ConfigError, match=r"no further step can be taken: decentral.shutdown\(\) was called"):
        optimizer.step()
    ordinary(model, optimizer.inner)
    ordinary(*session.wrap(model, optimizer.inner))


def test_a_wrapped_optimizer_cannot_be_copied(session: Session) -> None:
    model = mlp()
    _, optimizer = session.wrap(model, sgd(model))
    with pytest.raises(TypeError, match="holds connections and cannot be copied"):
        copy.deepcopy(optimizer)

"""One node: gossip with nobody is the identity, so a wrapped loop must be the plain PyTorch loop, bit for bit."""

import copy
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim.swa_utils import AveragedModel

from decentral.wrapping.session import Session
from tests.wrapping.features import FEATURES, Branches, Embedded, Feature, batches, lbfgs, ordinary
from tests.wrapping.methods import CORRECTED, METHODS, REDUCING, SUMMED


def same(one: Any, other: Any) -> bool:
    """Whether two nested states are equal bit for bit."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def compared(feature: Feature, session: Session, algorithm: Mapping[str, Any]) -> None:
    plain, plain_optimizer = feature.start()
    start = copy.deepcopy(plain.state_dict())
    feature.loop(plain, plain_optimizer)
    model, optimizer = session.wrap(*feature.start(), algorithm=algorithm)
    feature.loop(model, optimizer)
    assert not same(plain.state_dict(), start)
    assert same(model.state_dict(), plain.state_dict())
    assert same(optimizer.state_dict(), plain_optimizer.state_dict())
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        assert ours.grad is None or torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("algorithm", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("feature", FEATURES.values(), ids=FEATURES)
def test_a_wrapped_loop_is_the_plain_loop(feature: Feature, algorithm: Mapping[str, Any], session: Session) -> None:
    if feature.optimizer is lbfgs and algorithm["name"] in REDUCING:
        pytest.skip("steps with another gradient than the node's own; refused, see test_refusals")
    if feature.model is Embedded and algorithm["name"] in REDUCING:
        pytest.skip("the mean gradient is dense, which sums a row's entries in another order")
    compared(feature, session, algorithm)


@pytest.mark.parametrize("algorithm", (MORE := CORRECTED | SUMMED).values(), ids=MORE)
@pytest.mark.parametrize("feature", ["ordinary", "unused parameters, zeroed in place", "bfloat16"])
def test_so_it_is_where_steps_are_corrected_or_sums_passed_on(
    feature: str, algorithm: Mapping[str, Any], session: Session
) -> None:
    compared(FEATURES[feature], session, algorithm)


def test_a_method_that_takes_the_step_itself_follows_the_users_groups_and_scheduler(session: Session) -> None:
    """Alone, momentum tracking is SGD with that momentum: weight decay by group, a falling rate, an unused branch."""
    plain, model = Branches(), Branches()
    model.load_state_dict(plain.state_dict())

    def made(of: nn.Module, **options: float) -> torch.optim.Optimizer:
        heavy, light = list(of.first.parameters()), [*of.second.parameters(), *of.third.parameters()]  # type: ignore[union-attr]
        return torch.optim.SGD([{"params": heavy, "weight_decay": 0.1}, {"params": light}], lr=0.02, **options)

    wrapped, optimizer = session.wrap(model, made(model), algorithm={"name": "momentum-tracking", "momentum": 0.5})
    for trained, its in ((plain, made(plain, momentum=0.5)), (wrapped, optimizer)):
        scheduler = torch.optim.lr_scheduler.StepLR(its, 2, gamma=0.1)
        for inputs, targets in batches():
            trained.passes = 2  # every pass uses both branches
            mse_loss(trained(inputs), targets).backward()
            its.step()
            its.zero_grad()
            scheduler.step()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_a_scheduler_made_before_wrapping_goes_on(session: Session) -> None:
    model, inner = FEATURES["ordinary"].start()
    scheduler = torch.optim.lr_scheduler.StepLR(inner, 1)
    model, optimizer = session.wrap(model, inner)
    ordinary(model, optimizer)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001)


def test_hooks_on_either_optimizer_are_called(session: Session) -> None:
    model, inner = FEATURES["ordinary"].start()
    model, optimizer = session.wrap(model, inner)
    seen: list[str] = []
    inner.register_step_post_hook(lambda *_: seen.append("inner"))
    optimizer.register_step_post_hook(lambda *_: seen.append("outer"))
    optimizer.register_state_dict_post_hook(lambda *_: seen.append("saved"))
    inputs, targets = next(batches())
    mse_loss(model(inputs), targets).backward()
    optimizer.step()
    optimizer.state_dict()
    assert seen == ["inner", "outer", "saved"]


def test_checkpoints_move_between_wrapped_and_plain(session: Session, tmp_path: Path) -> None:
    """In the ordinary names, by torch.save and safetensors, and into the vector: the next step starts from there."""
    model, optimizer = session.wrap(*FEATURES["tied parameters"].start())
    ordinary(model, optimizer)
    stored = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, stored)
    stored.seek(0)
    plain, plain_optimizer = FEATURES["tied parameters"].start()
    loaded = torch.load(stored)
    plain.load_state_dict(loaded["model"])
    plain_optimizer.load_state_dict(loaded["optimizer"])
    ordinary(plain, plain_optimizer)
    ordinary(model, optimizer)
    assert same(model.state_dict(), plain.state_dict())

    other = Session(session.world)
    again, again_optimizer = other.wrap(*FEATURES["tied parameters"].start())
    again.load_state_dict(plain.state_dict())
    again_optimizer.load_state_dict(copy.deepcopy(plain_optimizer.state_dict()))  # torch would share tensors
    for trained, its in ((again, again_optimizer), (plain, plain_optimizer)):
        ordinary(trained, its)
    assert same(again.state_dict(), plain.state_dict())
    other.close()


def test_safetensors_takes_a_wrapped_model(session: Session, tmp_path: Path) -> None:
    model, optimizer = session.wrap(*FEATURES["ordinary"].start())
    ordinary(model, optimizer)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    assert same(load_file(tmp_path / "model.safetensors"), dict(model.state_dict()))


def test_a_copy_of_the_model_is_not_wrapped(session: Session) -> None:
    """Averaged copies (EMA) are made by deepcopy, and whole models are saved: neither drags links along."""
    model, optimizer = session.wrap(*FEATURES["ordinary"].start())
    ema = AveragedModel(model)
    ordinary(model, optimizer)
    ema.update_parameters(model)
    assert ema.module[0].weight.untyped_storage().data_ptr() != model[0].weight.untyped_storage().data_ptr()  # type: ignore[index]
    whole = io.BytesIO()
    torch.save(model, whole)
    whole.seek(0)
    loaded = torch.load(whole, weights_only=False)
    inputs, _ = next(batches())
    assert torch.equal(loaded(inputs), model.eval()(inputs))


def test_a_loss_without_a_pass_of_the_model_itself_counts_where_the_point_is_right(session: Session) -> None:
    """A method of the model that calls its layers is seen by their own hooks; one that uses the tensors is not."""

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(5, 1))

        def apply_to(self, inputs: Tensor) -> Tensor:
            return inputs @ self.weight

    def loop(model: Bare, optimizer: torch.optim.Optimizer) -> Tensor:
        for inputs, targets in batches():
            mse_loss(model.apply_to(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
        return model.weight.detach()

    plain, model = Bare(), Bare()
    _, optimizer = session.wrap(model, torch.optim.SGD(model.parameters(), 0.01))
    assert torch.equal(loop(model, optimizer), loop(plain, torch.optim.SGD(plain.parameters(), 0.01)))


def test_a_compiled_model(session: Session) -> None:
    """Compiled before or after it is wrapped."""
    plain, plain_optimizer = FEATURES["ordinary"].start()
    ordinary(plain, plain_optimizer)
    model, inner = FEATURES["ordinary"].start()
    before = torch.compile(model, backend="eager")
    ordinary(*session.wrap(before, inner, algorithm={"name": "dsgd", "order": "combine-then-adapt"}))  # type: ignore[arg-type]
    assert same(model.state_dict(), plain.state_dict())
    model, inner = FEATURES["ordinary"].start()
    model, optimizer = session.wrap(model, inner)
    ordinary(torch.compile(model, backend="eager"), optimizer)  # type: ignore[arg-type]
    assert same(model.state_dict(), plain.state_dict())

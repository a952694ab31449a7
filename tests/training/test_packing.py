"""Any State goes into a tree and tensors and comes back with the same bits, and what cannot is refused by name."""

import json
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import Tensor

from decentral.algorithms.algorithm import State
from decentral.algorithms.local import BoundOptimizer, LocalOptimizer
from decentral.errors import ConfigError
from decentral.peer import Block, Ticket
from decentral.training.packing import pack, same, unpack

LAYOUT = (Block("weight", (3, 2), 0), Block("bias", (2,), 6))
SGD = LocalOptimizer(torch.optim.SGD, {"lr": 0.1, "momentum": 0.9})


class Pair(NamedTuple):
    first: Tensor
    second: float


@dataclass(slots=True)
class Inner:
    memory: Tensor
    count: int


@dataclass(slots=True)
class Rich(State):
    extra: Any = None
    inner: Inner | None = None
    by_neighbor: dict[int, Any] = field(default_factory=dict)


def fresh(local: LocalOptimizer = SGD) -> Rich:
    x = torch.zeros(8)
    return Rich(x=x, local=local.bind(x, LAYOUT))


def through_files(state: State, into: State) -> Any:
    """Pack, write as the files of a checkpoint, read, unpack."""
    tree, tensors = pack(state, "state")
    stored = save({name: tensor.clone() for name, tensor in tensors.items()})
    return unpack(json.loads(json.dumps(tree, allow_nan=False)), load(stored), into)


def trees(value: object) -> Any:
    """The value with optimizers and dataclasses as plain containers, and generators as their states."""
    if isinstance(value, BoundOptimizer):
        return [value.x, value.optimizer.state_dict()]
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, State | Inner):
        return {name: trees(getattr(value, name)) for name in _names(type(value))}
    if isinstance(value, dict):
        return {key: trees(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        made = [trees(item) for item in value]
        return made if isinstance(value, list) else (type(value).__name__, *made)
    return value


def _names(kind: Any) -> list[str]:
    return list(kind.__dataclass_fields__)


def tensor_of(dtype: torch.dtype, shape: list[int], raw: bytes) -> Tensor:
    size = math.prod(shape) * dtype.itemsize
    content = (raw * (size // max(len(raw), 1) + 1))[:size]
    if dtype is torch.bool:
        content = bytes(byte & 1 for byte in content)
    return torch.frombuffer(bytearray(content or b"\0" * 16), dtype=dtype)[: math.prod(shape)].reshape(shape).clone()


DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
TENSORS = st.builds(
    tensor_of, st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3), st.binary(min_size=1, max_size=16)
)
NUMBERS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
KEYS = st.one_of(st.integers(), st.text(max_size=5))
VALUES = st.recursive(
    st.one_of(NUMBERS, TENSORS, st.builds(lambda seed: torch.Generator().manual_seed(seed), st.integers(0, 2**40))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
        st.builds(Pair, TENSORS, st.floats()),
        st.builds(Inner, TENSORS, st.integers()),
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(extra=VALUES, neighbors=st.dictionaries(st.integers(0, 9), VALUES, max_size=3), steps=st.integers(0, 2))
def test_a_state_comes_back_bit_by_bit(extra: Any, neighbors: dict[int, Any], steps: int) -> None:
    state = fresh()
    state.extra, state.by_neighbor = extra, neighbors
    for _ in range(steps):
        state.local.step(torch.randn(8))
    into = fresh()
    x = into.x
    back = through_files(state, into)
    assert back is into
    assert back.x is x
    assert back.local.x is x
    assert same(trees(back), trees(state))


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "Adamax", "Rprop"])
def test_a_local_optimizer_goes_on_as_if_nothing_had_happened(name: str) -> None:
    local = LocalOptimizer(getattr(torch.optim, name), {"lr": 0.05, **({"momentum": 0.9} if name == "SGD" else {})})
    state = fresh(local)
    gradients = [torch.randn(8, generator=torch.Generator().manual_seed(k)) for k in range(8)]
    for gradient in gradients[:4]:
        state.local.step(gradient.clone())
    back = through_files(state, fresh(local))
    for gradient in gradients[4:]:
        state.local.step(gradient.clone())
        back.local.step(gradient.clone())
    assert torch.equal(back.x, state.x)
    assert not torch.equal(state.x, torch.zeros(8))


def test_what_shares_memory_shares_it_again() -> None:
    state = fresh()
    state.extra = [state.x, state.x[2:5], torch.ones(3)]
    back = through_files(state, fresh())
    back.x.fill_(7)
    assert [float(tensor.mean()) for tensor in back.extra] == [7, 7, 1]


def test_what_shared_memory_at_first_and_no_more_stays_apart() -> None:
    """An init may give one tensor two names; once a step has parted them, filling the first ones would join them."""
    state, into = fresh(), fresh()
    state.extra, state.inner = torch.ones(2), Inner(torch.zeros(2), 1)
    into.extra = torch.empty(2)
    into.inner = Inner(into.extra, 0)
    back = through_files(state, into)
    assert back.extra.tolist() == [1, 1]
    assert back.inner.memory.tolist() == [0, 0]


def _unslotted() -> Any:
    @dataclass
    class Loose(State):
        pass

    state = Loose(fresh().x, fresh().local)
    state.hidden = 3  # type: ignore[attr-defined]
    return state


def _with(extra: Any) -> Callable[[], Any]:
    def build() -> Any:
        state = fresh()
        state.extra = extra
        return state

    return build


TWICE = [1]
BUFFER = torch.zeros(6)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (_with(deque([1])), "state.extra, of type deque"),
        (_with({"a": {3, 4}}), "state.extra.a, of type set"),
        (_with(lambda: 3), "state.extra, of type function"),
        (_with({(1, 2): 3}), r"state.extra: its key \(1, 2\)"),
        (_with([TWICE, TWICE]), "state.extra.1: it is the same object as state.extra.0"),
        (_with([Ticket(3)]), "state.extra.0: its exchange is under way"),
        (_with(torch.zeros(2).to_sparse()), "state.extra, a tensor of"),
        (_with(torch.zeros(2, device="meta")), "state.extra, a tensor of"),
        (_with(torch.zeros(2, dtype=torch.complex64)), "state.extra, a tensor of"),
        (_with([BUFFER[:2], BUFFER[1:3]]), "state.extra.1: it shares memory with state.extra.0"),
        (_unslotted, "state.hidden: it is no field"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(build: Callable[[], Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        pack(build(), "state")


class Forgetful(torch.optim.SGD):
    """Gives back another learning rate than it was given."""

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        self.param_groups[0]["lr"] = 1.0


@pytest.mark.parametrize(
    ("tree", "told"),
    [
        ({"object": ["os", "system", {}]}, "no class system in os"),
        ({"object": ["subprocess", "Popen", {}]}, "Popen is no dataclass"),
        ({"object": ["module.that.is.not.loaded", "X", {}]}, "no class X"),
        ({"exec": "1"}, "no kind 'exec'"),
        ({"tensor": "nowhere"}, "nowhere"),
        ({"view": ["nowhere", 0, [1], [1]]}, "nowhere"),
        ({"a": 1, "b": 2}, "cannot be restored"),
        ([1], "cannot be restored"),
    ],
)
def test_a_foreign_tree_is_refused(tree: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        unpack(tree, {}, fresh())


def test_an_optimizer_that_does_not_take_its_state_back_is_told() -> None:
    local = LocalOptimizer(Forgetful, {"lr": 0.1})
    with pytest.raises(ConfigError, match=r"Forgetful\.load_state_dict changes"):
        through_files(fresh(local), fresh(local))

"""A State as named tensors and a tree of JSON, and back: nobody's class needs code of its own to be checkpointed.

Plain numbers, texts and None stand for themselves in the tree; whatever else is a mapping with one key, its kind:

    {"tensor": name}                          stored under that name
    {"view": [name, offset, size, stride]}    memory shared with a stored tensor
    {"generator": name}                       the state of a torch.Generator
    {"optimizer": [x, state_dict]}            a local optimizer and the flat vector that it is bound to
    {"object": [module, class, {field: ...}]} a dataclass;  {"named": [module, class, [...]]}  a named tuple
    {"dict": [[key, value], ...]}, {"list": [...]}, {"tuple": [...]}, {"float": "nan"}
"""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from decentral.algorithms.local import BoundOptimizer
from decentral.errors import ConfigError
from decentral.peer import Ticket

_ALLOWED = "a State is made of dataclasses, dicts, lists and tuples of tensors, numbers, texts and None"
_PLAIN = (bool, int, str, type(None))
_DTYPES = (
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
)


def pack(value: object, name: str) -> tuple[Any, dict[str, Tensor]]:
    """The tree of a value, and its tensors by name; they share memory with the value.

    Args:
        name: of the value, with which the names of its tensors begin.

    Raises:
        ConfigError: something that is neither structure nor number; the text names it.
    """
    packer = _Packer()
    return packer.tree(value, name), packer.tensors


class _Packer:
    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._owners: dict[int, tuple[str, Tensor]] = {}  # by address of the memory: who stores it
        self._seen: dict[int, str] = {}  # containers, by identity

    def tree(self, value: object, name: str) -> Any:
        if type(value) in _PLAIN:
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": str(value)}
        if isinstance(value, Tensor):
            return self._tensor(value, name)
        if type(value) is not tuple:
            self._check_single(value, name)
        if isinstance(value, torch.Generator):
            return {"generator": self._stored(value.get_state(), name)}
        if isinstance(value, BoundOptimizer):
            return self._optimizer(value, name)
        return self._structure(value, name)

    def _structure(self, value: object, name: str) -> Any:
        if type(value) is dict:
            return {"dict": [[self._key(key, name), self.tree(item, f"{name}.{key}")] for key, item in value.items()]}
        if isinstance(value, list | tuple) and type(value) in (list, tuple):
            items = [self.tree(item, f"{name}.{index}") for index, item in enumerate(value)]
            return {type(value).__name__: items}
        if isinstance(value, Ticket):
            raise ConfigError(
                f"a checkpoint cannot hold {name}: its exchange is under way; collect it in the same step"
            )
        if _is_named_tuple(type(value)):
            items = [self.tree(item, f"{name}.{index}") for index, item in enumerate(value)]  # type: ignore[arg-type, var-annotated]
            return {"named": [type(value).__module__, type(value).__qualname__, items]}
        if is_dataclass(value) and not isinstance(value, type):
            own = {field.name for field in fields(value)}
            if extra := sorted(vars(value).keys() - own) if hasattr(value, "__dict__") else []:
                raise ConfigError(f"a checkpoint cannot hold {name}.{extra[0]}: it is no field of the dataclass")
            parts = {field: self.tree(getattr(value, field), f"{name}.{field}") for field in _set_fields(value)}
            return {"object": [type(value).__module__, type(value).__qualname__, parts]}
        raise ConfigError(f"a checkpoint cannot hold {name}, of type {type(value).__name__}; {_ALLOWED}")

    def _optimizer(self, bound: BoundOptimizer, name: str) -> Any:
        return {"optimizer": [self.tree(bound.x, f"{name}.x"), self.tree(_plain(bound), f"{name}.optimizer")]}

    def _key(self, key: object, name: str) -> Any:
        if type(key) not in _PLAIN:
            raise ConfigError(f"a checkpoint cannot hold {name}: its key {key!r} is neither a number nor a text")
        return key

    def _check_single(self, value: object, name: str) -> None:
        """Two ways to one container would be two containers after a restart."""
        if first := self._seen.get(id(value)):
            raise ConfigError(f"a checkpoint cannot hold {name}: it is the same object as {first}; keep one of them")
        self._seen[id(value)] = name

    def _tensor(self, tensor: Tensor, name: str) -> Any:
        if tensor.layout != torch.strided or tensor.dtype not in _DTYPES or tensor.device.type == "meta":
            kind = f"{tensor.layout} {tensor.dtype} on {tensor.device}"
            raise ConfigError(f"a checkpoint cannot hold {name}, a tensor of {kind}; dense real ones are required")
        address = tensor.untyped_storage().data_ptr()
        if tensor.numel() == 0 or address not in self._owners:
            stored = self._stored(tensor, name)
            self._owners[address] = stored, tensor
            return {"tensor": stored}
        owner, whole = self._owners[address]
        # Within the owner, which may itself lie in larger memory, such as a message's.
        offset = tensor.storage_offset() - whole.storage_offset()
        end = offset + 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        if not whole.is_contiguous() or whole.dtype != tensor.dtype or offset < 0 or end > whole.numel():
            raise ConfigError(f"a checkpoint cannot hold {name}: it shares memory with {owner}; keep a clone in one")
        return {"view": [owner, offset, list(tensor.shape), list(tensor.stride())]}

    def _stored(self, tensor: Tensor, name: str) -> str:
        while name in self.tensors:
            name += "'"
        self.tensors[name] = tensor.detach().contiguous()
        return name


def _plain(bound: BoundOptimizer) -> dict[str, Any]:
    """The optimizer's own account of itself, in containers that stand for nothing else."""
    state = bound.optimizer.state_dict()
    return {"state": dict(state["state"]), "param_groups": list(state["param_groups"])}


def _set_fields(value: Any) -> Iterator[str]:
    return (field.name for field in fields(value) if hasattr(value, field.name))


def _is_named_tuple(kind: type) -> bool:
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


def unpack(tree: Any, tensors: Mapping[str, Tensor], fresh: object) -> Any:
    """The value of a tree.

    Filled in place, since the training loop and the local optimizers hold them: `fresh` itself where it is a dataclass,
    its `x`, and the flat vectors that its local optimizers are bound to.

    Args:
        tensors: by name; they become part of the value.
        fresh: what the value was when the run began.

    Raises:
        ConfigError: the tree is not of the same program, or the optimizer does not take its state back.
    """
    return _Unpacker(tensors, fresh).value(tree, fresh, "state")


class _Unpacker:
    def __init__(self, tensors: Mapping[str, Tensor], fresh: object) -> None:
        self._tensors = tensors
        self._held = {id(optimizer.x) for optimizer in _optimizers(fresh)} | {id(getattr(fresh, "x", None))}
        self._top = fresh
        self._made: dict[str, Tensor] = {}

    def value(self, tree: Any, fresh: object, name: str) -> Any:
        if type(tree) in (*_PLAIN, float):
            return tree
        try:
            ((kind, content),) = tree.items()
            return self._value(kind, content, fresh, name)
        except (AttributeError, TypeError, ValueError, KeyError, RuntimeError) as error:
            raise ConfigError(f"{name} cannot be restored ({error}); it was written by another program") from error

    def _value(self, kind: str, content: Any, fresh: object, name: str) -> Any:
        match kind:
            case "tensor":
                return self._tensor(content, fresh)
            case "view":
                return self._view(content, fresh)
            case "generator":
                generator = torch.Generator()
                generator.set_state(self._tensors[content])
                return generator
            case "optimizer":
                return self._optimizer(content, fresh, name)
            case "object":
                return self._object(content, fresh, name)
            case "named":
                return self._named(content, fresh, name)
            case "dict":
                old = fresh if isinstance(fresh, dict) else {}
                return {key: self.value(item, old.get(key), f"{name}.{key}") for key, item in content}
            case "list":
                return self._items(content, fresh, name)
            case "tuple":
                return tuple(self._items(content, fresh, name))
            case "float":
                return float(content)
        raise ValueError(f"no kind {kind!r}")

    def _tensor(self, stored: str, fresh: object) -> Tensor:
        tensor = self._tensors[stored]
        if isinstance(fresh, Tensor) and id(fresh) in self._held:
            if (fresh.shape, fresh.dtype) != (tensor.shape, tensor.dtype):
                raise ValueError(f"found {tuple(tensor.shape)} {tensor.dtype}, required {tuple(fresh.shape)}")
            tensor = fresh.copy_(tensor)
        self._made[stored] = tensor
        return tensor

    def _view(self, content: Any, fresh: object) -> Tensor:
        stored, offset, size, stride = content
        base = self._made[stored]
        if isinstance(fresh, Tensor) and fresh.data_ptr() == base.data_ptr() and fresh.shape == base.shape:
            return fresh
        return base.as_strided(size, stride, offset)

    def _optimizer(self, content: Any, fresh: object, name: str) -> BoundOptimizer:
        if not isinstance(fresh, BoundOptimizer):
            raise ConfigError(f"{name} cannot be restored: init makes no local optimizer there")
        x, state = content
        self.value(x, fresh.x, f"{name}.x")
        state = self.value(state, None, f"{name}.optimizer")
        fresh.optimizer.load_state_dict(state)
        if not same(_plain(fresh), state):
            kind = type(fresh.optimizer).__name__
            raise ConfigError(f"{name} cannot be restored: {kind}.load_state_dict changes what state_dict gave")
        return fresh

    def _items(self, items: Any, fresh: object, name: str) -> list[Any]:
        old = fresh if isinstance(fresh, list | tuple) and len(fresh) == len(items) else [None] * len(items)
        return [self.value(item, old[index], f"{name}.{index}") for index, item in enumerate(items)]

    def _named(self, content: Any, fresh: object, name: str) -> Any:
        module, qualified, items = content
        kind = _known(module, qualified, fresh)
        if not _is_named_tuple(kind):
            raise ValueError(f"{qualified} is no named tuple")
        return kind(*self._items(items, fresh, name))

    def _object(self, content: Any, fresh: object, name: str) -> Any:
        module, qualified, parts = content
        kind = _known(module, qualified, fresh)
        if not is_dataclass(kind):
            raise ValueError(f"{qualified} is no dataclass")
        made = fresh if fresh is self._top and type(fresh) is kind else object.__new__(kind)
        for field in sorted(parts, key=lambda field: [f.name for f in fields(kind)].index(field)):
            value = self.value(parts[field], getattr(fresh, field, None), f"{name}.{field}")
            object.__setattr__(made, field, value)
        return made


def _known(module: str, qualified: str, fresh: object) -> type:
    """A class that this program has loaded already: a file never has another one imported."""
    if (type(fresh).__module__, type(fresh).__qualname__) == (module, qualified):
        return type(fresh)
    found: Any = sys.modules.get(module)
    for part in qualified.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        raise ValueError(f"no class {qualified} in {module}")
    return found


def _optimizers(value: object) -> Iterator[BoundOptimizer]:
    if isinstance(value, BoundOptimizer):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _optimizers(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _optimizers(item)
    elif is_dataclass(value):
        for field in _set_fields(value):
            yield from _optimizers(getattr(value, field))


def same(one: Any, other: Any) -> bool:
    """Whether two values have the same kinds and the same bits."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return alike and bool(torch.equal(_bits(one), _bits(other)))
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    return bool(one == other or (one != one and other != other))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)

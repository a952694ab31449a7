"""One wrapped model at this node: started alike on all, evaluated at the average, saved and loaded between rounds."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from decentral.algorithms.algorithm import State
from decentral.errors import ConfigError
from decentral.transport.rank import RankDriver
from decentral.transport.world import World
from decentral.wrapping.flat_model import FlatModel
from decentral.wrapping.optimizer import GossipOptimizer
from decentral.wrapping.rounds import Rounds

Buffers = Literal["local", "average"]
VERSION = 1


class Entrance:
    """A hook that tells when a forward pass begins; a copy of the model, or one that is saved whole, has none."""

    def __init__(self, entered: Callable[[], None]) -> None:
        self._entered = entered

    def __call__(self, *_: Any) -> None:
        if not torch.compiler.is_compiling():  # it would become part of the compiled pass
            self._entered()

    def __reduce__(self) -> tuple[Callable[[], Any], tuple[()]]:
        return _unwatched, ()


def _unwatched() -> Callable[..., None]:
    return _pass


def _pass(*_: Any) -> None:
    """The hook that is left of an Entrance."""


@dataclass(eq=False)
class Wrapped:
    """A model, its optimizer and the algorithm between them.

    Args:
        method: what the algorithm is and on which graph; a checkpoint of another one is refused.
        buffers: whether `averaged` averages floating-point buffers (running statistics) or leaves each node its own.
    """

    world: World
    driver: RankDriver
    model: FlatModel
    rounds: Rounds
    optimizer: GossipOptimizer
    method: str
    buffers: Buffers
    _handles: list[RemovableHandle] = field(default_factory=list)

    def __post_init__(self) -> None:
        entrance = Entrance(self._entered)
        self._handles = [owner.register_forward_pre_hook(entrance) for owner in self.model.owners]
        found = next(_running_statistics(self.model.module), None)
        if found is not None and self.buffers == "local" and self.world.size > 1 and self.world.rank == 0:
            warnings.warn(
                f"{found} and other buffers stay each node's own, while parameters are averaged; "
                'use GroupNorm, or buffers="average" to average them in decentral.evaluate_averaged',
                stacklevel=5,
            )

    def _entered(self) -> None:
        """A forward pass begins: if it is one of training, so does the next round."""
        if torch.is_grad_enabled() and self.model.module.training:
            self.rounds.begin()

    @contextmanager
    def averaged(self, patience_s: float) -> Iterator[nn.Module]:
        """Within it, the module is the average of all nodes' models; all ranks enter and leave together.

        Raises:
            LostNeighborError: a rank died or did not come.
        """
        module, node = self.model.module, self.world.rank
        with torch.inference_mode(False), torch.no_grad():
            average = self._mean(self.model.x)
            own, mean = [], []
            if self.buffers == "average":
                own = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
                mean = [self._mean(buffer.reshape(-1)).view(buffer.shape) for buffer in own]
        with self.model.pointed_at(average), _holding(own, mean):
            torch.clear_autocast_cache()  # casts of the parameters' own values
            yield module
        torch.clear_autocast_cache()
        self.driver.gather({node: [0.0]}, patience_s)

    def _mean(self, x: Tensor) -> Tensor:
        """The mean over all nodes, summed in float32 at least."""
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        return self.driver.mean({self.world.rank: wide.contiguous()}).to(x.dtype)

    def state_dict(self) -> dict[str, Any]:
        """What the algorithm carries beside the model and the optimizer's state, and the round.

        Raises:
            ConfigError: a round is under way, or its State holds what is neither tensor nor number.
        """
        self._check_between_rounds("saved")
        return {**self._identity(), "round": self.rounds.round, "algorithm": _kept(self.rounds.state)}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave at this node.

        Raises:
            ConfigError: of another node, number of nodes or method, or a round is under way.
        """
        self._check_between_rounds("loaded")
        for key, own in self._identity().items():
            if key not in saved or saved[key] != own:
                raise ConfigError(f"found a checkpoint with {key} {saved.get(key)!r}; required: {own!r}")
        own = _kept(self.rounds.state)
        if saved["algorithm"].keys() != own.keys():
            raise ConfigError(f"found algorithm state {sorted(saved['algorithm'])}; required: {sorted(own)}")
        for name, value in saved["algorithm"].items():
            setattr(self.rounds.state, name, _copied(value, name))
        self.rounds.round = int(saved["round"])

    def _identity(self) -> dict[str, Any]:
        return {"version": VERSION, "node": self.world.rank, "nodes": self.world.size, "method": self.method}

    def _check_between_rounds(self, what: str) -> None:
        if self.rounds.under_way:
            raise ConfigError(
                f"the algorithm's state cannot be {what} within a round, which the last forward pass in training "
                "began; do it after optimizer.step()"
            )

    def close(self, why: str) -> None:
        """Take the hooks off the model, which stays as it is, and give the links back."""
        for handle in self._handles:
            handle.remove()
        self.rounds.end(why)
        self.driver.close()


def start_alike(driver: RankDriver, module: nn.Module, patience_s: float) -> None:
    """Overwrite all parameters and buffers of `module` with node 0's."""
    tensors = [tensor.detach() for tensor in (*module.parameters(), *module.buffers()) if tensor.numel()]
    with torch.no_grad():
        as_bytes = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in tensors]
        if not as_bytes:
            return
        packed = torch.cat(as_bytes)
        driver.broadcast(packed, patience_s)
        parts = packed.split([part.numel() for part in as_bytes])  # type: ignore[no-untyped-call]
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.clone().view(tensor.dtype).view(tensor.shape))


def _running_statistics(module: nn.Module) -> Iterator[str]:
    for name, _ in module.named_buffers():
        if name.rpartition(".")[2] in ("running_mean", "running_var"):
            yield name


@contextmanager
def _holding(tensors: list[Tensor], values: list[Tensor]) -> Iterator[None]:
    """Within it, the tensors have these values; then their own again."""
    own = [tensor.clone() for tensor in tensors]
    _fill(tensors, values)
    try:
        yield
    finally:
        _fill(tensors, own)


@torch.no_grad()
def _fill(tensors: list[Tensor], values: list[Tensor]) -> None:
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def _kept(state: State) -> dict[str, Any]:
    """Copies of a State's fields, without x, which is the model's, and the local optimizer, which has its own."""
    assert is_dataclass(state)
    names = [field.name for field in fields(state) if field.name not in ("x", "local")]
    return {name: _copied(getattr(state, name), name) for name in names}


def _copied(value: Any, name: str) -> Any:
    match value:
        case Tensor():
            return value.detach().clone()
        case dict():
            return {key: _copied(item, name) for key, item in value.items()}
        case list() | tuple():
            return type(value)(_copied(item, name) for item in value)
        case None | bool() | int() | float() | str():
            return value
    raise ConfigError(f"the algorithm's state.{name} is a {type(value).__name__}; tensors and numbers can be saved")

"""A user's module as one flat vector: those of its parameters that the optimizer trains, in the module's order."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from decentral.errors import ConfigError
from decentral.peer import Block
from decentral.training.objective import Views


class FlatModel:
    """The trained parameters of a module, moved into one vector; the module and its names stay what they are.

    Frozen parameters, and those that the optimizer does not hold, are left alone.

    Args:
        module: the user's.
        optimizer: the user's, over parameters of the module.

    Attributes:
        x: `(d,)`, the vector in which the parameters lie between rounds.

    Raises:
        ConfigError: parameters that are not the module's, of several dtypes, or not in this machine's memory.
    """

    def __init__(self, module: nn.Module, optimizer: Optimizer) -> None:
        trained = _trained(module, optimizer)
        self.module, self._optimizer = module, optimizer
        self.parameters = list(trained.values())
        self._ids = {id(parameter) for parameter in self.parameters}
        blocks, start = [], 0
        for name, parameter in trained.items():
            blocks.append(Block(name, tuple(parameter.shape), start))
            start += parameter.numel()
        self.layout = tuple(blocks)
        self.x = torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters])
        self._views = Views(self.parameters, self.layout)
        self.point_at(self.x)
        self._homes = [
            (owner, name, parameter)
            for owner in module.modules()
            for name, parameter in owner.named_parameters(recurse=False)
            if id(parameter) in self._ids
        ]

    @property
    def owners(self) -> list[nn.Module]:
        """The modules that hold a trained parameter themselves, and the whole."""
        return list({id(owner): owner for owner in (self.module, *(home[0] for home in self._homes))}.values())

    def point_at(self, vector: Tensor) -> None:
        """Make the parameters views of `vector: (d,)`."""
        self._views.point_at(vector)

    @contextmanager
    def pointed_at(self, vector: Tensor) -> Iterator[None]:
        """Within it, the parameters are views of `vector: (d,)`; then of what they were before."""
        before = self._views.vector
        assert before is not None
        self.point_at(vector)
        try:
            yield
        finally:
            self.point_at(before)

    @torch.no_grad()
    def gradient_into(self, out: Tensor) -> None:
        """Write the parameters' gradients into `out: (d,)`, zeros where there is none."""
        parts = []
        for parameter in self.parameters:
            gradient = parameter.grad
            if gradient is None:
                gradient = torch.zeros_like(parameter)
            parts.append((gradient.to_dense() if gradient.is_sparse else gradient).reshape(-1))
        torch.cat(parts, out=out)

    @contextmanager
    def gradients_from(self, gradient: Tensor, absent: bool, whole: bool = False) -> Iterator[None]:
        """Within it, the parameters' gradients are views of `gradient: (d,)`; then they are the user's again.

        A parameter that the user's loss did not use has none, unless others have: its block is not zero.

        Args:
            absent: take no parameter for used.
            whole: take all of them for used.
        """
        own = [parameter.grad for parameter in self.parameters]
        for parameter, block, used in zip(self.parameters, self.layout, own, strict=True):
            given = block.of(gradient)
            unused = not whole and (absent or used is None) and not given.any()
            parameter.grad = None if unused else given
        try:
            yield
        finally:
            for parameter, before in zip(self.parameters, own, strict=True):
                parameter.grad = before

    def check(self) -> None:
        """Raise ConfigError where a parameter has left the vector, or one that is trained is not in it."""
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.requires_grad and id(parameter) not in self._ids:
                    raise ConfigError(
                        f"{self._named(parameter)} was added to the optimizer or unfrozen after decentral.wrap; "
                        "wrap once the model and the optimizer are complete, with requires_grad set"
                    )
        for owner, name, parameter in self._homes:
            if owner._parameters.get(name) is not parameter:
                raise ConfigError(
                    f"parameter {self._named(parameter)} was replaced after decentral.wrap; "
                    "wrap the complete model, and load into it without assign=True"
                )
        vector = self._views.vector
        assert vector is not None
        start, itemsize = vector.data_ptr(), vector.element_size()
        for parameter, block in zip(self.parameters, self.layout, strict=True):
            if parameter.data_ptr() != start + itemsize * block.start and parameter.numel():
                raise ConfigError(
                    f"parameter {block.name} has new memory since decentral.wrap (by model.to(), .half() or .data = ); "
                    "convert and move the model before it is wrapped, and the optimizer made"
                )

    def _named(self, parameter: nn.Parameter) -> str:
        names = {id(other): name for name, other in self.module.named_parameters()}
        for block, other in zip(self.layout, self.parameters, strict=True):
            names.setdefault(id(other), block.name)
        return names.get(id(parameter), f"a parameter of shape {tuple(parameter.shape)}")


def _trained(module: nn.Module, optimizer: Optimizer) -> dict[str, nn.Parameter]:
    named = dict(module.named_parameters())
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if foreign := len(held - {id(parameter) for parameter in named.values()}):
        raise ConfigError(
            f"{foreign} of the optimizer's {len(held)} parameters are not the model's; "
            "make the optimizer from the parameters of the model that is wrapped"
        )
    for name, parameter in named.items():
        if is_lazy(parameter):
            raise ConfigError(f"parameter {name} has no shape yet; run the model once before decentral.wrap")
    trained = {name: p for name, p in named.items() if p.requires_grad and id(p) in held}
    if not trained:
        raise ConfigError("the optimizer holds no parameter with requires_grad; there is nothing to train")
    _check_alike(trained)
    return trained


def _check_alike(trained: dict[str, nn.Parameter]) -> None:
    dtypes = Counter(str(parameter.dtype).removeprefix("torch.") for parameter in trained.values())
    if len(dtypes) > 1:
        found = ", ".join(f"{dtype} ({count})" for dtype, count in dtypes.items())
        raise ConfigError(
            f"the trained parameters are of dtypes {found}; one is required: convert the model with model.to(dtype), "
            "and use torch.autocast for mixed precision"
        )
    name, first = next(iter(trained.items()))
    if not first.is_floating_point():
        raise ConfigError(f"parameter {name} is {first.dtype}; real floating-point numbers are required")
    elsewhere = {str(parameter.device) for parameter in trained.values()} - {"cpu"}
    if elsewhere:
        raise ConfigError(f"found parameters on {', '.join(sorted(elsewhere))}; links carry the CPU's memory only")

"""What is trained: the built-in models and the user's own, with the same first weights on every node."""

import warnings
from collections.abc import Callable
from itertools import pairwise
from math import prod
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy

from decentral import config
from decentral.errors import ConfigError
from decentral.seeding import integer_seed
from decentral.training.language import RecurrentModel, Transformer
from decentral.user_code import blame, called, checked_options, imported

Shape = tuple[int, ...]

_SEEDING = Lock()
"""torch's initializers draw from one generator per process, and tests run nodes as threads."""


def build(
    section: config.Model, sample_shape: Shape, outputs: int, seed: int, dtype: torch.dtype, folder: Path
) -> nn.Module:
    """The model at its starting point, which depends on the seed but not on the node.

    Weights are drawn in float32 (unless the user's own code draws otherwise) and then cast, so that a run in float64
    starts from the same point.

    Args:
        section: which model.
        sample_shape: shape of one input.
        outputs: features of the last layer: the number of classes, or of values to predict.
        seed: the run's.
        dtype: of the parameters.
        folder: where the user's own module is looked for.

    Raises:
        ConfigError: the model cannot take such samples, or the user's function is at fault.
    """
    make = MODELS[config.OWN if isinstance(section, config.OwnCode) else section.name]
    with _SEEDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer_seed(seed, -1, "model"))
        try:
            model = make(section, sample_shape=sample_shape, outputs=outputs, folder=folder)
        except RuntimeError as error:
            raise ConfigError(f"model {section.name} cannot be made: {blame(error)}", section.path) from error
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        warnings.warn(
            f"model {section.name} has BatchNorm: its running statistics are not averaged, each node keeps its own; "
            "prefer GroupNorm",
            stacklevel=2,
        )
    return model.to(dtype)


def _linear(section: config.Linear, *, sample_shape: Shape, outputs: int, **_: Any) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(_features(section, sample_shape), outputs, bias=section.bias))


def _mlp(section: config.MLP, *, sample_shape: Shape, outputs: int, **_: Any) -> nn.Module:
    widths = [_features(section, sample_shape), *section.hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


def _features(section: config.Linear | config.MLP, sample_shape: Shape) -> int:
    if not sample_shape:
        raise ConfigError(
            f"model {section.name!r} found inputs of shape (samples,); it needs (samples, features): add a dimension",
            section.path,
        )
    return prod(sample_shape)


def _cnn(section: config.CNN, *, sample_shape: Shape, outputs: int, **_: Any) -> nn.Module:
    if len(sample_shape) != 3 or min(sample_shape[1:]) < 4:
        raise ConfigError(
            f"model 'cnn' found samples of shape {sample_shape}; it needs (channels, height, width) of at least 4 x 4: "
            "use model mlp or linear",
            section.path,
        )
    planes, height, width = sample_shape
    first, second = section.channels, 2 * section.channels
    last = nn.Linear(second * (height // 4) * (width // 4), outputs)
    return nn.Sequential(*_stage(planes, first), *_stage(first, second), nn.Flatten(), last)


def _stage(planes: int, channels: int) -> list[nn.Module]:
    """A 3x3 convolution that keeps the size, and a pooling that halves it."""
    return [nn.Conv2d(planes, channels, 3, padding=1), nn.GroupNorm(2, channels), nn.ReLU(), nn.MaxPool2d(2)]


def _gru(section: config.GRU, *, sample_shape: Shape, outputs: int, **_: Any) -> nn.Module:
    _context(section, sample_shape)
    return RecurrentModel(outputs, section.width, section.layers)


def _gpt(section: config.GPT, *, sample_shape: Shape, outputs: int, **_: Any) -> nn.Module:
    if section.width % section.heads:
        raise ConfigError(
            f"{section.heads} heads cannot share a width of {section.width}; width must be a multiple of heads",
            (*section.path, "heads"),
        )
    context = _context(section, sample_shape)
    return Transformer(outputs, context, section.width, section.heads, section.layers, section.dropout)


def _context(section: config.GRU | config.GPT, sample_shape: Shape) -> int:
    if len(sample_shape) != 1:
        raise ConfigError(
            f"model {section.name!r} found samples of shape {sample_shape}; it needs (context,), the numbers of "
            "characters: use data pydoc-topics, or model mlp or cnn",
            section.path,
        )
    return sample_shape[0]


def _own(section: config.OwnCode, *, folder: Path, **_: Any) -> nn.Module:
    function = imported(section.name, folder, section.path)
    model = called(function, options=checked_options(function, section.options, section.path), at=section.path)
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"{section.name} returned {type(model).__name__}; it must return a torch.nn.Module", section.path
        )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trained or any(is_lazy(parameter) for parameter in trained):
        found = "lazy parameters, of no size yet" if trained else "no trainable parameter"
        raise ConfigError(
            f"{section.name} returned a {type(model).__name__} with {found}; "
            "it must have at least one parameter with requires_grad, and the shape of each must be set",
            section.path,
        )
    return model


MODELS: dict[str, Callable[..., nn.Module]] = {
    "linear": _linear,
    "mlp": _mlp,
    "cnn": _cnn,
    "gru": _gru,
    "gpt": _gpt,
    config.OWN: _own,
}

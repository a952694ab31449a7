"""The local optimizer named in an experiment: any torch.optim class, its options checked before the run."""

from functools import partial
from importlib import import_module

import torch

from decentral import config
from decentral.algorithms.local import LocalOptimizer
from decentral.config.rates import Constant
from decentral.errors import ConfigError, nearest
from decentral.user_code import blame, checked_options


def local_optimizer(section: config.Optimizer, rounds: int) -> LocalOptimizer:
    """Resolve the import path and try the optimizer once on one parameter.

    Args:
        rounds: of the experiment, by whose end the learning rate has fallen unless its schedule says otherwise.

    Raises:
        ConfigError: no such class, not an optimizer, unknown or refused options, or one that needs a closure.
    """
    factory = _optimizer_class(section)
    options = checked_options(factory, {"lr": section.lr} | section.options, section.path, positional=1)
    parameter = torch.nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.zeros_like(parameter)
    try:
        factory([parameter], **options).step()
    except Exception as error:
        raise ConfigError(
            f"{section.name} cannot be the local optimizer: {blame(error)}; "
            "it must take dense gradients and step without a closure",
            section.path,
        ) from error
    unchanging = section.schedule == Constant()
    return LocalOptimizer(factory, options, None if unchanging else partial(section.schedule.factor, rounds=rounds))


def _optimizer_class(section: config.Optimizer) -> type[torch.optim.Optimizer]:
    module_name, _, class_name = section.name.rpartition(".")
    at = (*section.path, "name")
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"cannot import {module_name!r} ({error}); use a path such as torch.optim.SGD", at) from error
    known = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer)
    }
    if class_name not in known:
        raise ConfigError(f"{module_name} has no optimizer {class_name!r}{nearest(class_name, known)}", at)
    return known[class_name]

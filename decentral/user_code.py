"""Functions that come from outside: imported by name, called with checked options, their faults told in one line.

The gallery's `build(nodes, *, ...)`, the user's `module:function` for model and data, and torch.optim classes all go
through here, so an unknown option and a wrong type read the same for each.
"""

import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ConfigDict, Field, ValidationError, create_model

from decentral.config import KeyPath
from decentral.errors import ConfigError, nearest


def imported(name: str, folder: Path, at: KeyPath) -> Callable[..., Any]:
    """The function that `module:function` names, importable from `folder`, the current folder or the environment.

    Raises:
        ConfigError: no such module or function, or the module fails when imported.
    """
    module_name, _, function_name = name.partition(":")
    for place in (str(Path.cwd()), str(folder.resolve())):
        if place not in sys.path:
            sys.path.insert(0, place)
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(f"{module_name} failed on import: {blame(error)}", at) from error
        raise ConfigError(
            f"no module {module_name!r} in {folder} or on the Python path; put {module_name}.py beside the experiment",
            at,
        ) from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{module_name} failed on import: {blame(error)}", at) from error
    return function_of(module, function_name, at)


def function_of(module: ModuleType, name: str, at: KeyPath) -> Callable[..., Any]:
    """The module's function of that name."""
    function = getattr(module, name, None)
    if not callable(function):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ConfigError(f"{module.__name__} has no function {name!r}{nearest(name, public)}", at)
    return function  # type: ignore[no-any-return]


def checked_options(
    function: Callable[..., Any], options: Mapping[str, Any], at: KeyPath, positional: int = 0
) -> dict[str, Any]:
    """The options, checked by name and annotated type against the function's parameters after the `positional` first.

    Raises:
        ConfigError: unknown, missing or ill-typed option; `at` plus its key is the place.
    """
    parameters = _optional_parameters(function, positional, at)
    fields: dict[str, Any] = {}
    for number, (key, parameter) in enumerate(parameters.items()):
        unsaid = parameter.annotation is parameter.empty or isinstance(parameter.annotation, str)
        default = ... if parameter.default is parameter.empty else parameter.default
        # Under names of our own: an option called `copy` or `_depth` is no field name that pydantic would take.
        fields[f"option_{number}"] = (Any if unsaid else parameter.annotation, Field(default, alias=key))
    for key in options:
        if key not in parameters:
            raise ConfigError(f"unknown key{nearest(key, parameters) or '; it takes no options'}", (*at, key))
    model = create_model("Options", __config__=ConfigDict(arbitrary_types_allowed=True), **fields)
    try:
        checked = model.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        found = "" if first["type"] == "missing" else f", found {first['input']!r}"
        raise ConfigError(f"{first['msg']}{found}", (*at, str(first["loc"][0]))) from error
    return {key: getattr(checked, field) for field, key in zip(fields, parameters, strict=True) if key in options}


def _optional_parameters(function: Callable[..., Any], positional: int, at: KeyPath) -> dict[str, inspect.Parameter]:
    try:
        signature = inspect.signature(function, eval_str=True)
    except (NameError, AttributeError, TypeError, SyntaxError):  # such an annotation says nothing about the type
        signature = inspect.signature(function)
    except ValueError as error:
        raise ConfigError(f"{error}: options cannot be checked; call it from a function of your own", at) from error
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = list(signature.parameters.items())[positional:]
    return {key: value for key, value in parameters if value.kind in named}


def called(function: Callable[..., Any], *arguments: Any, options: Mapping[str, Any], at: KeyPath) -> Any:
    """`function(*arguments, **options)`; whatever it raises becomes one line that names file and line.

    Raises:
        ConfigError: from whatever the function raised.
    """
    try:
        return function(*arguments, **options)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        name = getattr(function, "__qualname__", type(function).__qualname__)
        raise ConfigError(f"{function.__module__}.{name} failed: {blame(error)}", at) from error


def blame(error: BaseException) -> str:
    """`ring.py:12: ValueError: degree must be even`: the innermost frame that raised, and what."""
    if isinstance(error, SyntaxError):
        return f"{Path(error.filename or '?').name}:{error.lineno}: SyntaxError: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}: " if frames else ""
    text = " ".join(str(error).split())
    return f"{where}{type(error).__name__}: {text[:300]}"

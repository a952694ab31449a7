"""Decentralized deep learning on PyTorch: each node trains its own model and talks only to its neighbors on a graph.

The functions here are for a training loop of one's own; they are loaded, and torch with them, when first used.
"""

from importlib import import_module

__version__ = "0.1.0"

__all__ = [
    "evaluate_averaged",
    "init",
    "load_state_dict",
    "rank",
    "shutdown",
    "size",
    "state_dict",
    "wrap",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module("decentral.wrapping.face"), name)
    raise AttributeError(f"module 'decentral' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

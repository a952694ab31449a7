"""Which device a process computes on, and which physical GPU that is."""

import re

import torch

from decentral.errors import MissingEnvironmentError
from decentral.transport.launcher import launched

CPU = torch.device("cpu")


def placed(asked: str, local_rank: int | None = None) -> torch.device:
    """The device that an experiment's `device` means in this process.

    Args:
        asked: `cpu`, `cuda`, `cuda:N`, or `auto`: a GPU where there is one.
        local_rank: of this process among those of its host; it picks the GPU, round robin, where `asked` does not.

    Raises:
        MissingEnvironmentError: no GPU, or none of that number.
    """
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return CPU
    if not torch.cuda.is_available():
        raise MissingEnvironmentError(f"device: {asked}, but {_why_none()}; use device: auto or cpu")
    count = torch.cuda.device_count()
    numbered = re.fullmatch(r"cuda:(\d+)", asked)
    number = int(numbered[1]) if numbered else (local_rank or 0) % count
    if number >= count:
        raise MissingEnvironmentError(f"device: {asked}, but this machine has GPUs 0 to {count - 1}; use one of those")
    return torch.device("cuda", number)


def own_place(asked: str) -> torch.device:
    """`placed`, by the local rank that the launcher tells this process."""
    this = launched()
    return placed(asked, this.local_rank if this else None)


def identity(place: torch.device) -> str | None:
    """What two processes share exactly if they compute on the same GPU; None on the CPU."""
    return str(torch.cuda.get_device_properties(place).uuid) if place.type == "cuda" else None


def finish(place: torch.device) -> None:
    """Wait until a GPU has done all that it was given; nothing to wait for on the CPU."""
    if place.type == "cuda":
        torch.cuda.synchronize(place)


def _why_none() -> str:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    return "torch finds no GPU"

"""What the launcher says of this process: its rank, how many there are, and where they meet."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from decentral.errors import MissingEnvironmentError

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Launched:
    """What the launcher says of this process."""

    launcher: str
    rank: int
    size: int
    master: str
    one_machine: bool


def launched(environment: Mapping[str, str] = os.environ) -> Launched | None:
    """Reads torchrun's variables; None in a process that no launcher started.

    Raises:
        MissingEnvironmentError: some of the variables are set and others are not, or they make no sense.
    """
    found = {name: environment[name] for name in _VARIABLES if name in environment}
    if "RANK" not in found and "WORLD_SIZE" not in found:
        return None
    if missing := [name for name in _VARIABLES if name not in found]:
        raise MissingEnvironmentError(
            f"{', '.join(found)} set but not {', '.join(missing)}; start all nodes with torchrun or with --nproc"
        )
    try:
        rank, size = int(found["RANK"]), int(found["WORLD_SIZE"])
    except ValueError as error:
        raise MissingEnvironmentError(f"RANK and WORLD_SIZE must be integers: {error}") from error
    if not 0 <= rank < size:
        raise MissingEnvironmentError(f"RANK={rank} is not below WORLD_SIZE={size}")
    launcher = "torchrun" if "TORCHELASTIC_RUN_ID" in environment else "environment variables"
    one_machine = environment.get("LOCAL_WORLD_SIZE") == found["WORLD_SIZE"] or _is_loopback(found["MASTER_ADDR"])
    return Launched(launcher, rank, size, found["MASTER_ADDR"], one_machine)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False

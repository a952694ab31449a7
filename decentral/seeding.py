"""Randomness is an argument: one independent stream per (seed, node, purpose), the same in every driver and process."""

from zlib import crc32

import numpy as np


def stream(seed: int, node: int, purpose: str) -> np.random.Generator:
    """The NumPy generator of one purpose at one node; `node=-1` is what all nodes share."""
    return np.random.default_rng(np.random.SeedSequence([seed, node + 1, crc32(purpose.encode())]))


def integer_seed(seed: int, node: int, purpose: str) -> int:
    """The same stream's first 63 bits, for generators that take one integer (torch)."""
    return int(stream(seed, node, purpose).integers(2**63))


def turn_stream(seed: int, turn: int, purpose: str) -> np.random.Generator:
    """The generator of one turn of a schedule, which all nodes share; no turn depends on those before it."""
    return np.random.default_rng(np.random.SeedSequence([seed, crc32(purpose.encode()), turn]))

"""Plain loops over NumPy arrays, compiled by numba."""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compiled without the GIL, and kept on disk for the next process where a folder for that can be written."""
    try:
        return numba.njit(nogil=True, cache=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # no such folder
        return numba.njit(nogil=True)(function)  # type: ignore[no-any-return]

"""A place for one thing, between two threads: whoever puts something there gets what was there before."""

from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Place(Generic[T]):
    """Holds one thing, or nothing. Its lock is held for as long as a pointer takes to be swapped."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._held: T | None = None

    def is_empty(self) -> bool:
        """Whether nothing is there."""
        return self._held is None

    def swap(self, new: T | None) -> T | None:
        """Put something there, or nothing; what was there."""
        with self._lock:
            old, self._held = self._held, new
        return old

"""`decentral doctor`."""


def doctor() -> None:
    """Placeholder."""

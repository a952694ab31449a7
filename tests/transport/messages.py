"""Messages as tests of drivers and links send them."""

from decentral.peer import Messages, Payload


def both_ways(payload: Payload, neighbors: tuple[int, ...]) -> Messages:
    """The same payload to all neighbors, and one from each."""
    return Messages.alike(payload, neighbors, neighbors)

"""Messages are numbered on their links: so a duplicate, which a lost acknowledgment makes, is recognized."""

from collections import defaultdict


class Numbers:
    """Of all links, by sender and receiver."""

    def __init__(self) -> None:
        self._sent: dict[tuple[int, int], int] = defaultdict(int)
        self._due: dict[tuple[int, int], int] = defaultdict(int)

    def next(self, sender: int, receiver: int) -> int:
        """The number of the next message over a link."""
        number = self._sent[sender, receiver]
        self._sent[sender, receiver] += 1
        return number

    def sent(self, sender: int, receiver: int) -> int:
        """How many a link has had."""
        return self._sent.get((sender, receiver), 0)

    def go_on(self, sender: int, receiver: int, sent: int) -> None:
        """A link has had so many, all of which have come."""
        self._sent[sender, receiver] = self._due[sender, receiver] = sent

    def is_new(self, sender: int, receiver: int, number: int) -> bool:
        """Whether this is the first copy of a message that has come; those of a link come in order."""
        due = self._due[sender, receiver]
        assert number <= due, f"message {number} from node {sender} to node {receiver} came before message {due}"
        self._due[sender, receiver] = max(due, number + 1)
        return number == due

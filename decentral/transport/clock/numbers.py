"""Messages are numbered on their links: so a duplicate, which a lost acknowledgment makes, is recognized."""


class Numbers:
    """Of all links, by sender and receiver."""

    def __init__(self) -> None:
        self._sent: dict[tuple[int, int], int] = {}
        self._due: dict[tuple[int, int], int] = {}

    def next(self, sender: int, receiver: int) -> int:
        """The number of the next message over a link."""
        edge = sender, receiver
        number = self._sent.get(edge, 0)
        self._sent[edge] = number + 1
        return number

    def sent(self, sender: int, receiver: int) -> int:
        """How many a link has had."""
        return self._sent.get((sender, receiver), 0)

    def go_on(self, sender: int, receiver: int, sent: int) -> None:
        """A link has had so many, all of which have come."""
        self._sent[sender, receiver] = self._due[sender, receiver] = sent

    def is_new(self, sender: int, receiver: int, number: int) -> bool:
        """Whether this is the first copy of a message that has come; those of a link come in order."""
        edge = sender, receiver
        due = self._due.get(edge, 0)
        assert number <= due, f"message {number} from node {sender} to node {receiver} came before message {due}"
        if number < due:
            return False
        self._due[edge] = due + 1
        return True

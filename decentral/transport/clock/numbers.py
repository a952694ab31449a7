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

    def is_new(self, sender: int, receiver: int, number: int) -> bool:
        """Whether this is the first copy of a message that has come; those of a link come in order."""
        edge = sender, receiver
        due = self._due.get(edge, 0)
        assert number <= due, f"message {number} from node {sender} to node {receiver} came before message {due}"
        if number < due:
            return False
        self._due[edge] = due + 1
        return True

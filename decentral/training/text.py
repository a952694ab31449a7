"""The text that Python itself carries, as windows of characters, whose targets are the characters one further on.

What `help()` shows of the language's topics lies in `pydoc_data.topics`, one text per topic. Topics quote each other,
so a paragraph is kept where it stands first (topics in alphabetical order): else what is tested on would stand in the
training text as well.
"""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

PARAGRAPH = "\n\n"


class Windows(NamedTuple):
    """Windows of a text. A character is its place in the vocabulary."""

    train: Tensor  # (N, context + 1) int64
    test: Tensor  # (M, context + 1) int64
    origins: Tensor  # (N,) int64, the place among the texts of what each training window is from
    vocabulary: str  # all characters of the texts, ascending


def pydoc_topics() -> dict[str, str]:
    """The texts of Python's own help, by topic, in alphabetical order."""
    from pydoc_data.topics import topics

    return {name: topics[name] for name in sorted(topics)}


def digest(texts: Mapping[str, str]) -> str:
    """The sha256 of the texts and their names, which tells one version of Python's from another."""
    joined = "\0".join(f"{name}\0{text}" for name, text in texts.items())
    return sha256(joined.encode()).hexdigest()


def windows(texts: Mapping[str, str], context: int, test_fraction: float) -> Windows:
    """Cut texts into windows that do not overlap; the last ones of each text are for testing.

    Args:
        texts: by name.
        context: characters of a window's input; a window has one more, the target of the last.
        test_fraction: of each text's windows; a text of one window spares none, and one of more at least one.

    Raises:
        ValueError: no text is long enough for two windows.
    """
    vocabulary = "".join(sorted({character for text in texts.values() for character in text}))
    number = {character: index for index, character in enumerate(vocabulary)}
    train, test, origins = [], [], []
    for origin, text in enumerate(without_repetition(texts)):
        cut = [text[start : start + context + 1] for start in range(0, len(text) - context, context)]
        kept = len(cut) - (max(1, round(test_fraction * len(cut))) if len(cut) > 1 else 0)
        train += cut[:kept]
        test += cut[kept:]
        origins += [origin] * kept
    if not test:
        raise ValueError(f"no text of {len(texts)} has two windows of {context} characters")
    train_numbers, test_numbers = (
        torch.tensor([[number[character] for character in window] for window in part]) for part in (train, test)
    )
    return Windows(train_numbers, test_numbers, torch.tensor(origins), vocabulary)


def without_repetition(texts: Mapping[str, str]) -> Iterator[str]:
    """Each text without the paragraphs that an earlier one has, or that it has had itself."""
    seen: set[str] = set()
    for text in texts.values():
        kept = [part for part in dict.fromkeys(text.split(PARAGRAPH)) if part not in seen]
        seen.update(kept)
        yield PARAGRAPH.join(kept)


def next_character_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy in nats per character, `()`: outputs `(b, context, vocabulary)`, targets `(b, context)`."""
    return cross_entropy(outputs.flatten(0, 1), targets.flatten())

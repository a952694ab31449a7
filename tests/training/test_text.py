"""Windows of text: the target is the next character, tests are what stands last, and nothing stands in both."""

from pathlib import Path

import pytest
import torch

from decentral import config
from decentral.errors import ConfigError
from decentral.training import data
from decentral.training.text import digest, next_character_loss, pydoc_topics, windows, without_repetition

TEXTS = {"first": "abcdefghijkl", "second": "ijklmnop", "short": "xy"}


def spelled(numbers, vocabulary):
    return ["".join(vocabulary[number] for number in row) for row in numbers.tolist()]


def test_windows_by_hand():
    cut = windows(TEXTS, context=3, test_fraction=0.25)
    assert cut.vocabulary == "abcdefghijklmnopxy"
    assert spelled(cut.train, cut.vocabulary) == ["abcd", "defg", "ijkl"]
    assert spelled(cut.test, cut.vocabulary) == ["ghij", "lmno"]
    assert cut.origins.tolist() == [0, 0, 1]


def test_texts_without_two_windows_are_refused():
    with pytest.raises(ValueError, match="no text of 1 has two windows of 5 characters"):
        windows({"short": "abcdefgh"}, context=5, test_fraction=0.1)


def test_a_paragraph_is_kept_where_it_stands_first():
    texts = {"a": "one\n\ntwo\n\none", "b": "three\n\ntwo", "c": "one"}
    assert list(without_repetition(texts)) == ["one\n\ntwo", "three", ""]


def test_the_digest_tells_texts_and_names_apart():
    assert len({digest(texts) for texts in ({"a": "b"}, {"a": "c"}, {"b": "b"}, {"a": "b", "c": ""})}) == 4


def test_the_loss_is_per_character():
    outputs = torch.zeros(2, 3, 5)
    assert next_character_loss(outputs, torch.zeros(2, 3, dtype=torch.long)) == pytest.approx(
        float(torch.tensor(5.0).log())
    )


def test_pydoc_topics_as_data():
    found = data.load(config.PydocTopics(name="pydoc-topics", context=32), 4, 0, Path(), torch.float32)
    assert torch.equal(found.train_inputs[:, 1:], found.train_targets[:, :-1])
    assert found.sample_shape == (32,)
    assert found.classes == len(found.class_names) > 60
    assert len(found.origins) == len(found.train_inputs)
    share = len(found.test_inputs) / (len(found.test_inputs) + len(found.train_inputs))
    assert share == pytest.approx(0.1, abs=0.02)
    assert found.versions == {"pydoc_data.topics": f"sha256 {digest(pydoc_topics())}"}
    inputs = {tuple(row) for row in found.train_inputs.tolist()}
    repeated = sum(tuple(row) in inputs for row in found.test_inputs.tolist())
    assert repeated < 0.01 * len(found.test_inputs)  # without_repetition; with it a tenth of them would be known


def test_a_context_longer_than_every_topic_is_refused(monkeypatch):
    monkeypatch.setattr(data.text, "pydoc_topics", lambda: TEXTS)
    with pytest.raises(ConfigError, match=r"no text of 3 has two windows of 64 characters; lower context"):
        data.load(config.PydocTopics(name="pydoc-topics"), 4, 0, Path(), torch.float32)

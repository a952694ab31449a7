"""Who has what, counted by hand, for data with classes, with characters, and without either; and its picture."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml

from decentral.config import Experiment
from decentral.loading import load
from decentral.measure.holdings import Holdings, effective_classes, gradients_at_start, holdings, label_distance
from decentral.measure.holdings_figure import drawn_classes, holdings_picture
from decentral.training.task import Task, task

REST: dict[str, Any] = {"nodes": 4, "rounds": 1, "algorithm": "dsgd", "topology": "ring"}
DIGITS = REST | {"data": "digits", "model": "linear", "partition": {"name": "dirichlet", "alpha": 0.3}}
QUADRATICS = REST | {"data": {"name": "quadratics", "zeta2": 0.5}, "model": {"name": "linear", "bias": False}}
TOPICS = REST | {"data": {"name": "pydoc-topics", "context": 128}, "model": {"name": "gru", "width": 2}}
IMAGES = {"name": "images", "rotation": 30, "brightness": 0.5}


def made(folder: Path, sections: dict[str, Any]) -> tuple[Task, Experiment]:
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump(sections))
    experiment = load(path).experiment
    return task(experiment, 0), experiment


def held_by(folder: Path, sections: dict[str, Any]) -> Holdings:
    return holdings(*made(folder, sections))


def test_figures_by_hand() -> None:
    counts = np.array([[10, 0, 0], [0, 5, 5], [0, 0, 0]])[:2]
    assert label_distance(counts) == pytest.approx([0.5, 0.5])  # of all: 1/2, 1/4, 1/4
    assert effective_classes(counts) == pytest.approx([1, 2])
    assert label_distance(np.array([[3, 1], [6, 2]])) == pytest.approx([0, 0])


def test_counts_are_those_of_the_shards(tmp_path: Path) -> None:
    ready, experiment = made(tmp_path, DIGITS | {"shift": IMAGES})
    held = holdings(ready, experiment)
    assert held.partition == "dirichlet(alpha=0.3, min_samples=2)"
    assert (held.samples, held.classes) == (1438, [str(label) for label in range(10)])
    for node, shard in zip(held.nodes, ready.shards, strict=True):
        targets = ready.data.train_targets[shard].tolist()
        assert node.counts == [targets.count(label) for label in range(10)]
        assert node.samples == len(targets)
        assert node.view.startswith("rotated by ")
    assert held.size_ratio == max(map(len, ready.shards)) / min(map(len, ready.shards))
    assert Holdings.model_validate_json(held.model_dump_json()) == held


def test_data_without_classes(tmp_path: Path) -> None:
    held = held_by(tmp_path, QUADRATICS)
    assert (held.classes, held.label_distance, held.partition) == (None, None, "split by nature")
    assert [(node.samples, node.counts, node.effective_classes) for node in held.nodes] == [(10, None, None)] * 4


def test_topics_are_named_and_characters_counted(tmp_path: Path) -> None:
    held = held_by(tmp_path, TOPICS | {"partition": "natural"})
    names = [name for node in held.nodes for name in node.origins]
    assert len(names) == len(set(names)) > 20
    assert "compound" in names
    assert sum(node.counts[held.classes.index("space")] for node in held.nodes) > 0.1 * 128 * held.samples
    assert all(sum(node.counts) == 128 * node.samples for node in held.nodes)
    assert held.versions["pydoc_data.topics"].startswith("sha256 ")


def test_gradients_at_the_start_grow_with_the_skew(tmp_path: Path) -> None:
    def at_start(alpha: float) -> float:
        return gradients_at_start(made(tmp_path, DIGITS | {"partition": {"name": "dirichlet", "alpha": alpha}})[0])[0]

    assert at_start(0.1) > 3 * at_start(100)


@pytest.mark.parametrize(
    "sections",
    [DIGITS, DIGITS | {"nodes": 60, "partition": "iid"}, QUADRATICS, TOPICS, DIGITS | {"nodes": 1}],
    ids=["bubbles", "map", "no classes", "characters", "one node"],
)
@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_picture_is_whole_and_always_the_same(tmp_path: Path, sections: dict[str, Any], kind: str) -> None:
    held = held_by(tmp_path, sections)
    drawing = holdings_picture(held, kind)
    assert drawing == holdings_picture(held, kind)
    if kind == "png":
        assert drawing.startswith(b"\x89PNG")
        return
    text = "".join(ElementTree.fromstring(drawing).itertext())
    assert held.data in text
    assert "samples" in text
    assert ("class" in text) == (held.classes is not None)


def test_rare_classes_are_drawn_as_one_and_no_target_is_lost(tmp_path: Path) -> None:
    held = held_by(tmp_path, TOPICS)
    counts, names = drawn_classes(held)
    assert len(names) == counts.shape[1] == 30
    assert (names[0], names[-1]) == (f"{len(held.classes) - 29} others", "space")
    assert counts.sum(axis=1).tolist() == [sum(node.counts) for node in held.nodes]
    even = held.model_copy(
        update={
            "classes": [str(k) for k in range(100)],
            "nodes": [n.model_copy(update={"counts": [1] * 100}) for n in held.nodes],
        }
    )
    assert drawn_classes(even)[0].shape == (4, 100)
    assert torch.equal(torch.tensor(drawn_classes(even)[0]), torch.ones(4, 100, dtype=torch.float64))

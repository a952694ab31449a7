"""Methods are complete, in the order of the file, and told apart by their labels."""

import pytest

from decentral.config import Experiment
from decentral.methods import methods, untuned

AWC = {"name": "dsgd", "order": "adapt-while-communicate"}
HIERARCHICAL = {
    "name": "hierarchical",
    "group": 4,
    "between": "slices",
    "order": "adapt-while-communicate",
    "every": 2,
}
CTA = {"name": "dsgd", "order": "combine-then-adapt", "every": 4}

CONTROLLED = {"name": "consensus-control", "of": "qg-dsgdm", "target": 0.5}


def experiment(**sections: object) -> Experiment:
    base = {"nodes": 8, "rounds": 5, "data": "digits", "model": "linear", "algorithm": "dsgd", "topology": "ring"}
    return Experiment.model_validate({**base, **sections})


def labels(*compare: object, **sections: object) -> list[str]:
    return [method.label for method in methods(experiment(compare=compare, **sections))]


def test_own_then_compare_then_baselines_and_the_files_own_where_silent() -> None:
    whole = experiment(compare=[{"topology": "torus"}, {"optimizer": {"lr": 0.5}}])
    own, torus, faster, allreduce, ddp = methods(whole)
    assert (own.algorithm, own.topology, own.optimizer) == (whole.algorithm, whole.topology, whole.optimizer)
    assert (torus.topology.name, torus.algorithm, torus.optimizer) == ("torus", whole.algorithm, whole.optimizer)
    assert (faster.optimizer.lr, faster.topology) == (0.5, whole.topology)
    assert [allreduce.algorithm.name, ddp.algorithm.name] == ["allreduce", "ddp"]
    assert [method.baseline for method in methods(whole)] == [False, False, False, True, True]


@pytest.mark.parametrize(
    ("compare", "expected"),
    [
        ([], ["dsgd ring"]),
        ([{"algorithm": AWC}, {"algorithm": CTA}], ["dsgd ring", "dsgd awc ring", "dsgd cta ring tau=4"]),
        ([{"topology": "topologies/mine.py"}], ["dsgd ring", "dsgd mine"]),
        ([{"topology": "torus", "label": "mine"}], ["dsgd ring", "mine"]),
        ([{"optimizer": {"lr": 0.5}}], ["dsgd ring lr=0.1", "dsgd ring lr=0.5"]),
        (
            [{"topology": {"name": "ring", "weights": "uniform"}}],
            ["dsgd ring weights=default", "dsgd ring weights=uniform"],
        ),
        ([{"topology": {"name": "ring", "hops": 2}}], ["dsgd ring", "dsgd ring hops=2"]),
        ([{"optimizer": {"momentum": 0.9}}], ["dsgd ring", "dsgd ring momentum=0.9"]),
        (
            [{"optimizer": "torch.optim.AdamW"}],
            ["dsgd ring optimizer=torch.optim.SGD", "dsgd ring optimizer=torch.optim.AdamW"],
        ),
        ([{"algorithm": "dsgd"}, {"topology": "ring"}], ["dsgd ring", "dsgd ring 2", "dsgd ring 3"]),
        ([{"label": "dsgd ring", "topology": "torus"}], ["dsgd ring 2", "dsgd ring"]),
        ([{"algorithm": "ddp", "topology": "torus"}], ["dsgd ring", "ddp"]),
        ([{"algorithm": {"name": "diloco", "every": 20}}], ["dsgd ring", "diloco tau=20"]),
        ([{"algorithm": {"name": "sparta", "order": "adapt-while-communicate"}}], ["dsgd ring", "sparta awc ring"]),
        ([{"algorithm": HIERARCHICAL}], ["dsgd ring", "hierarchical 4 slices awc ring tau=2"]),
        (
            [
                {"algorithm": {**CONTROLLED, "of": CTA}},
                {"algorithm": {**CONTROLLED, "relative": True, "phases": [{"start": 3, "target": None}]}},
            ],
            ["dsgd ring", "dsgd cta ring tau=4 control=0.5", "qg-dsgdm ring control=0.5 relative in 2 phases"],
        ),
        (
            [{"algorithm": CONTROLLED}, {"algorithm": {**CONTROLLED, "of": {"name": "qg-dsgdm", "mu": 0.5}}}],
            [
                "dsgd ring",
                "qg-dsgdm ring control=0.5 of=qg-dsgdm",
                "qg-dsgdm ring control=0.5 of=qg-dsgdm mu=0.5",
            ],
        ),
        ([{"algorithm": "lead"}], ["dsgd ring", "lead ring qsgd norm=inf block=512"]),
        (
            [{"algorithm": "ef14"}, {"algorithm": {"name": "ef14", "compression": {"name": "random-k", "k": 9}}}],
            ["dsgd ring", "ef14 top-k", "ef14 random-k k=9"],
        ),
        (
            [{"algorithm": name} for name in ("ec-sgd-diana", {"name": "ec-sgd-diana", "shift_compression": "int8"})],
            [
                "dsgd ring",
                "ec-sgd-diana top-k shift_compression=random-k unbiased=True",
                "ec-sgd-diana top-k shift_compression=int8",
            ],
        ),
    ],
)
def test_labels_say_what_sets_methods_apart(compare: list[object], expected: list[str]) -> None:
    assert labels(*compare, baselines=[]) == expected


def test_baselines_are_labeled_by_their_algorithm() -> None:
    assert labels() == ["dsgd ring", "allreduce", "ddp"]
    assert labels(algorithm="allreduce") == ["allreduce", "allreduce 2", "ddp"]
    assert labels(baselines=[{"algorithm": "ef21"}]) == ["dsgd ring", "ef21 top-k"]
    assert labels(baselines=[{"algorithm": "ddp", "optimizer": {"lr": 1}}, {"algorithm": "ddp"}]) == [
        "dsgd ring",
        "ddp lr=1.0",
        "ddp lr=0.1",
    ]


def test_methods_that_are_tuned_are_not_named_after_the_rates_they_lose() -> None:
    compare = [{"optimizer": {"lr": 0.5}}, {"optimizer": {"lr": 0.2, "momentum": 0.9}}]
    whole = experiment(compare=compare, optimizer={"lr": 0.1}, baselines=[])
    assert [method.label for method in methods(whole)] == [
        "dsgd ring lr=0.1", "dsgd ring lr=0.5", "dsgd ring lr=0.2 momentum=0.9",
    ]  # fmt: skip
    leveled = methods(untuned(whole))
    assert [method.label for method in leveled] == ["dsgd ring", "dsgd ring 2", "dsgd ring momentum=0.9"]
    assert [method.optimizer.lr for method in leveled] == [0.1, 0.1, 0.1]

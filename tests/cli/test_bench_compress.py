"""`bench compress`: its document belongs together, its table has all rows, and bad options get one line."""

import pytest
import torch

from decentral.compression import COMPRESSORS
from decentral.measure.compression import SUBJECTS, Timed, square, subjects_on
from tests.cli.conftest import Command

CPU = ("bench", "compress", "--device", "cpu")
SOME = {"none", "top-k, 1 %", "int8, blocks of 512"}


def test_every_compressor_can_be_timed() -> None:
    assert {options["name"] for options in SUBJECTS.values()} == COMPRESSORS.keys()


def test_a_gpu_has_those_with_kernels() -> None:
    assert subjects_on(torch.device("cuda")) == [
        "none",
        "bf16",
        "fp16",
        "int8, blocks of 512",
        "sign",
        "top-k, 1 %",
        "top-k, 1 %, int8 values",
        "threshold, 1 %",
    ]
    assert subjects_on(torch.device("cpu")) == list(SUBJECTS)


def test_compressors_are_timed_beside_a_copy(decentral: Command) -> None:
    some = [word for name in SOME for word in ("--only", name)]
    done = decentral(
        "bench", "compress", "--device", "cpu", "--parameters", "10k", "--repetitions", "3", *some, "--json"
    )
    assert done.code == 0
    document = done.json
    assert (document["parameters"], document["dtype"], document["device"]) == (10_000, "float32", "cpu")
    assert document["machine"]
    rows = {row["name"]: row for row in document["subjects"]}
    assert rows.keys() == SOME
    assert rows["none"]["bytes"] == 40_000
    assert rows["top-k, 1 %"]["bytes"] == 100 * 4 + 100 + 18
    for row in rows.values():
        assert row["ratio"] == pytest.approx(40_000 / row["bytes"])
        for timed in (row["encode"], row["add"]):
            assert timed["min_ms"] <= timed["median_ms"] <= timed["max_ms"]
            assert timed["over_copy"] == pytest.approx(timed["median_ms"] / document["copy"]["median_ms"])
            assert timed["gb_s"] == pytest.approx(40_000 / timed["median_ms"] / 1e6)


def test_a_table_of_some(decentral: Command) -> None:
    done = decentral(
        "bench",
        "compress",
        "--device",
        "cpu",
        "--parameters",
        "1k",
        "--repetitions",
        "1",
        "--only",
        "sign",
        "--dtype",
        "float64",
    )
    assert done.code == 0
    head, copy, titles, row = done.out.splitlines()
    assert head.startswith("1000 numbers of float64 on cpu (")
    assert copy.startswith("a copy takes ")
    assert titles.split()[:3] == ["compressor", "bytes", "ratio"]
    assert row.split()[:3] == ["sign", str(125 + 2 * 8), "56.7"]  # a matrix of 31 by 31, and the rest


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--parameters", "10G"), "--parameters: found '10G'; required: a number from 1 to 4294967295, such as 500k"),
        (("--parameters", "0"), "--parameters: found '0'; required"),
        (("--dtype", "bf16"), "--dtype: found 'bf16'; required: float32 or float64"),
        (("--device", "gpu"), "--device: found 'gpu'; required: auto, cpu, cuda or cuda:N"),
        (("--only", "sing"), "--only: unknown name 'sing'; did you mean 'sign'?"),
    ],
)
def test_bad_options(options: tuple[str, str], told: str, decentral: Command) -> None:
    done = decentral("bench", "compress", *options)
    assert done.code == 2
    assert done.line.startswith(told)


def test_figures_are_of_medians() -> None:
    timed = Timed.of([0.004, 0.001, 0.002], copy_s=0.001, vector_bytes=40_000_000)
    assert timed == Timed(median_ms=2.0, min_ms=1.0, max_ms=4.0, gb_s=20.0, over_copy=2.0)


@pytest.mark.parametrize(("d", "parts"), [(1, [1]), (9, [9]), (10, [9, 1]), (1000, [961, 39])])
def test_the_matrix_and_the_rest_are_all_of_the_vector(d: int, parts: list[int]) -> None:
    layout = square(d)
    sizes = [block.shape[0] * (block.shape[1] if len(block.shape) > 1 else 1) for block in layout]
    assert sizes == parts
    assert [block.start for block in layout] == [0, *parts[:1]][: len(parts)]

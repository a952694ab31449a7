"""`decentral bench compress`: what each compressor costs beside a copy."""

import re
from typing import Annotated, Any

import typer
from rich.table import Table

from decentral.cli.console import complain, print_json, stdout
from decentral.cli.options import AsJson
from decentral.errors import ConfigError, nearest

_FACTORS = {"": 1, "k": 10**3, "m": 10**6}
_MOST = 2**32 - 1


def compress(
    parameters: Annotated[
        str, typer.Option("--parameters", metavar="D", help="Numbers of the vector, such as 500k or 10M.")
    ] = "10M",
    repetitions: Annotated[int, typer.Option("--repetitions", min=1, metavar="N", help="Turns of each.")] = 15,
    dtype: Annotated[str, typer.Option("--dtype", metavar="float32|float64", help="Of the vector.")] = "float32",
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="A row of the table; all unless given.")
    ] = None,
    device: Annotated[
        str, typer.Option("--device", metavar="auto|cpu|cuda", help="Where the vector is; auto: a GPU if there is one.")
    ] = "auto",
    json: AsJson = False,
) -> None:
    """Time every compressor on one core or GPU: encoding with its error feedback, and decoding into a sum."""
    size = _count(parameters)
    if dtype not in ("float32", "float64"):
        raise ConfigError(f"--dtype: found {dtype!r}; required: float32 or float64")
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ConfigError(f"--device: found {device!r}; required: auto, cpu, cuda or cuda:N")
    import torch

    from decentral.measure.compression import SUBJECTS, bench_compress, subjects_on
    from decentral.transport.gpu import placed

    place = placed(device)
    if place.type == "cuda" and dtype != "float32":
        raise ConfigError(f"--dtype: found {dtype}; on a GPU there are kernels for float32 alone: take --device cpu")
    for name in only or ():
        if name not in SUBJECTS:
            raise ConfigError(f"--only: unknown name {name!r}{nearest(name, SUBJECTS)}")
        if name not in subjects_on(place):
            raise ConfigError(
                f"--only: {name} has no kernels for a GPU; those that have: {'; '.join(subjects_on(place))}"
            )
    complain("each is tried once before the clock runs; the first time, that compiles it")
    document = bench_compress(size, repetitions, getattr(torch, dtype), only or (), place)
    if json:
        print_json(document)
    else:
        _print(document)


def _count(text: str) -> int:
    """`10M` as a number."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kM]?)", text)
    count = int(float(found[1]) * _FACTORS[found[2].lower()]) if found else 0
    if not 1 <= count <= _MOST:
        raise ConfigError(f"--parameters: found {text!r}; required: a number from 1 to {_MOST}, such as 500k or 10M")
    return count


def _print(document: dict[str, Any]) -> None:
    copy = document["copy"]
    out = stdout()
    out.print(
        f"{document['parameters']} numbers of {document['dtype']} on {document['device']} ({document['machine']}), "
        f"{document['repetitions']} turns, interleaved; {document['clock']}, medians"
    )
    out.print(
        f"a copy takes {copy['median_ms']:.2f} ms ({copy['min_ms']:.2f} to {copy['max_ms']:.2f}), "
        f"{copy['gb_s']:.1f} GB/s; the encoding includes its error feedback, the sum its checks; GB of the vector"
    )
    table = Table(box=None, header_style="bold")
    table.add_column("compressor", no_wrap=True)
    speed = ("GB/s", "copies")
    for column in ("bytes", "ratio", "encode, ms", "from, to", *speed, "add, ms", *speed):
        table.add_column(column, justify="right", no_wrap=True)
    for row in document["subjects"]:
        encode, add = row["encode"], row["add"]
        spread = f"{encode['min_ms']:.1f}, {encode['max_ms']:.1f}"
        first, *rest = _cells(encode)
        table.add_row(row["name"], f"{row['bytes']}", f"{row['ratio']:.1f}", first, spread, *rest, *_cells(add))
    out.print(table)


def _cells(timed: dict[str, float]) -> tuple[str, str, str]:
    return f"{timed['median_ms']:.2f}", f"{timed['gb_s']:.1f}", f"{timed['over_copy']:.2f}x"

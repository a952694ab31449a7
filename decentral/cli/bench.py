"""`decentral bench step`: the time of one step, method beside method."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from decentral.cli.console import print_json, stdout
from decentral.cli.options import AsJson, Jitter, Latency, Loss, Netlab, Out, Overrides, Rate
from decentral.shipped import shipped

app = typer.Typer(help="Benchmarks, interleaved in one run.", no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Benchmarks, interleaved in one run."""


@app.command("step")
def step(
    file: Annotated[Path | None, typer.Argument(help="Experiment; launch/bench_step.yaml unless given.")] = None,
    set_: Overrides = None,
    repetitions: Annotated[int, typer.Option("--repetitions", min=1, metavar="N", help="Turns of each method.")] = 20,
    steps: Annotated[int, typer.Option("--steps", min=1, metavar="N", help="Steps in a turn.")] = 4,
    rivals: Annotated[bool, typer.Option(help="Time DDP's other settings and decent-dp too.")] = True,
    out: Out = None,
    json: AsJson = False,
    netlab: Netlab = None,
    rate: Rate = None,
    latency: Latency = None,
    jitter: Jitter = None,
    loss: Loss = None,
) -> None:
    """Time one step of each method against the bare computation and against DDP."""
    from decentral.cli import ranks
    from decentral.cli.netlab import lab
    from decentral.loading import load
    from decentral.measure.bench import bench_step
    from decentral.measure.record import write_json
    from decentral.transport.world import World

    file, overrides = file or shipped("launch") / "bench_step.yaml", set_ or []
    hosts = lab(netlab, rate=rate, latency=latency, jitter=jitter, loss=loss)
    loaded = load(file, overrides)

    def work(world: World, folder: Path) -> None:
        document = bench_step(world, loaded.experiment, repetitions, steps, rivals)
        if world.rank == 0:
            write_json(folder / "bench.json", document)

    more = ["--repetitions", str(repetitions), "--steps", str(steps), "--rivals" if rivals else "--no-rivals"]
    folder = ranks.carried_out(
        ["bench", "step"], file, overrides, loaded, work, out=out, json=json, more=more, lab=hosts
    )
    if folder is not None:
        document = jsonlib.loads((folder / "bench.json").read_text())
        if json:
            print_json(document)
        else:
            _print(document, folder)


def _foretold(row: dict[str, float]) -> tuple[str, str]:
    return f"{row['predicted_ms']:.1f}", f"{row['predicted_over_measured']:.2f}x"


def _print(document: dict[str, object], folder: Path) -> None:
    from decentral.measure.comparison import Network
    from decentral.measure.tables import in_bytes, link_of, said

    subjects: list[dict[str, float]] = document["subjects"]  # type: ignore[assignment]
    table = Table(box=None, header_style="bold")
    table.add_column("one step", no_wrap=True)
    for column in ("median", "from, to", "efficiency", "over DDP", "overhead", "sent", "predicted", "ratio"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in subjects:
        table.add_row(
            str(row["name"]),
            f"{row['median_ms']:.1f}",
            f"{row['min_ms']:.1f}, {row['max_ms']:.1f}",
            f"{row['efficiency']:.2f}",
            "-" if row["over_ddp"] is None else f"{row['over_ddp']:.2f}x",
            f"{row['overhead_ms']:+.1f}",
            said(in_bytes, row["bytes_per_step"]),
            *(("-", "-") if row["predicted_ms"] is None else _foretold(row)),
        )
    stdout().print(
        f"{document['nodes']} ranks, {document['parameters']} parameters, batch {document['batch_size']}, "
        f"transport {document['transport']}, {document['repetitions']} turns of {document['steps']} steps, "
        "interleaved; in ms; ratio: predicted over the measured median"
    )
    if document["network"] is not None:
        carried = f"all hosts at once sent {8e-6 * float(document['carried_bytes_s']):.0f} Mbit/s each"  # type: ignore[arg-type]
        stdout().print(f"network lab: {link_of(Network.model_validate(document['network']))}; {carried}")
    stdout().print(table)
    stdout().print(f"recorded in {folder}")

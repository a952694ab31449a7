"""The options that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[Path, typer.Argument(help="Experiment file (YAML).", metavar="FILE", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Option("-s", "--set", metavar="KEY=VALUE", help="Override one key, such as -s optimizer.lr=0.05."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Run folder; runs/NAME-TIME unless given.")]
Nproc = Annotated[
    int | None,
    typer.Option("--nproc", min=1, metavar="N", help="Processes to start on this machine: one per node."),
]
Resume = Annotated[
    Path | None,
    typer.Option(
        "--resume", metavar="RUN", help="Go on in this run folder from its newest checkpoint.", show_default=False
    ),
]
From = Annotated[
    str | None,
    typer.Option("--from", metavar="round-N", help="An older checkpoint of RUN in place of the newest."),
]

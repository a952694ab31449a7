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
Trace = Annotated[
    bool,
    typer.Option("--trace", help="Record a timeline of each rank in RUN/trace; `decentral trace` merges them."),
]
TraceRounds = Annotated[
    int | None,
    typer.Option("--trace-rounds", min=1, metavar="N", help="Keep the last N rounds of it; 200 unless given."),
]
Netlab = Annotated[
    int | None,
    typer.Option("--netlab", min=2, metavar="HOSTS", help="Run in a network lab of so many hosts, one a node (root)."),
]
Rate = Annotated[
    str | None, typer.Option("--rate", metavar="RATE", help="Of each lab host's link, both ways, such as 100mbit.")
]
Latency = Annotated[str | None, typer.Option("--latency", metavar="TIME", help="Between lab hosts, one way: 10ms.")]
Jitter = Annotated[str | None, typer.Option("--jitter", metavar="TIME", help="Latency varies by plus or minus this.")]
Loss = Annotated[str | None, typer.Option("--loss", metavar="SHARE", help="Of the lab's packets, such as 0.1%.")]
Stragglers = Annotated[
    list[str] | None,
    typer.Option(
        "--straggler",
        metavar="node=I,slowdown=F",
        help="A slow node, with cpu=SHARE one that gets less of a core, with stall=S,every=S one that stands still at "
        "random; in place of the file's.",
    ),
]
Tune = Annotated[
    bool,
    typer.Option("--tune", help="First choose each method's learning rate from the file's `tune:` grid."),
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

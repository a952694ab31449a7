"""`decentral report RUN`: draw a recorded run or comparison again."""

from pathlib import Path
from typing import Annotated

import typer

from decentral.cli.options import AsJson
from decentral.cli.speedup import conclude


def report(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN", show_default=False)], json: AsJson = False
) -> None:
    """Write RUN/report.html from what the run recorded, and print its table."""
    conclude(run, json)

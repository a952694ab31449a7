"""`decentral report RUN`: draw a recorded run or comparison again, or several comparisons as one table."""

from pathlib import Path
from typing import Annotated

import typer

from decentral.cli.console import print_json, stdout
from decentral.cli.options import AsJson
from decentral.cli.speedup import conclude


def report(
    runs: Annotated[list[Path], typer.Argument(help="A run folder; several are put into one table.", metavar="RUN...")],
    json: AsJson = False,
) -> None:
    """Write RUN/report.html from what was recorded, and print its table; for several, beside the folders."""
    if len(runs) == 1:
        conclude(runs[0], json)
        return
    from decentral.measure.joint import joint_table, read_joint, write_joint_report

    joint = read_joint(runs)
    page = write_joint_report(joint)
    if json:
        print_json({"methods": joint.document(), "report": str(page)})
        return
    stdout().print(joint_table(joint))
    stdout().print(f"report: {page}")

"""`decentral doctor`: what this machine has for a run, and what it lacks."""

import typer

from decentral.cli.console import print_json, stdout
from decentral.cli.options import AsJson
from decentral.errors import MissingEnvironmentError

COLORS = {"ok": "green", "missing": "yellow", "broken": "red"}


def doctor(json: AsJson = False) -> None:
    """Examine this machine: torch, gloo, MPI, the launcher, shared memory, the network lab's needs, the hardware.

    Ends with 3 where something is broken that every run needs.
    """
    from decentral.transport.machine import examine

    out, findings = stdout(), []
    for finding in examine():
        findings.append(finding)
        if not json:
            color = COLORS[finding.verdict]
            out.print(f"[{color}]{finding.verdict:<8}[/]", end="", soft_wrap=True)
            out.print(f"{finding.topic:<14} {finding.text}", markup=False, soft_wrap=True)
    fatal = [finding.topic for finding in findings if finding.fatal]
    if json:
        rows = [
            {"topic": f.topic, "verdict": f.verdict, "text": f.text, "required": f.required, **f.facts}
            for f in findings
        ]
        print_json({"ok": not fatal, "findings": rows})
    if fatal and not json:
        raise MissingEnvironmentError(f"{', '.join(fatal)} broken, which every run needs; see above")
    if fatal:
        raise typer.Exit(MissingEnvironmentError.exit_code)

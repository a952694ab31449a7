"""`decentral launch FILE --with LAUNCHER`: the script or manifest that runs an experiment on a cluster."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from decentral.cli.console import print_json, stdout
from decentral.cli.options import AsJson, File, Overrides
from decentral.errors import ConfigError

if TYPE_CHECKING:
    from decentral.config import Experiment
    from decentral.transport.job import Job, Rendered

With = Annotated[
    str,
    typer.Option(
        "--with",
        metavar="LAUNCHER",
        show_default=False,
        help="torchrun, mpirun, slurm (slurm-torchrun), slurm-srun, kubernetes, kubernetes-mpi or skypilot.",
    ),
]
Nodes = Annotated[
    int | None,
    typer.Option(
        "--nodes",
        min=1,
        metavar="N",
        help="Nodes of the graph, each of them one rank; the file's unless given. Not hosts: see --ranks-per-host.",
    ),
]
PerHost = Annotated[
    int, typer.Option("--ranks-per-host", min=1, metavar="R", help="Ranks on each host: N/R hosts are asked for.")
]
Hosts = Annotated[str, typer.Option("--hosts", metavar="A,B,...", help="Names of the hosts (torchrun, mpirun).")]
Image = Annotated[str, typer.Option("--image", help="Container image (kubernetes, kubernetes-mpi, skypilot).")]
Partition = Annotated[str, typer.Option("--partition", help="Slurm partition.")]
Time = Annotated[str, typer.Option("--time", help="Slurm time limit, such as 04:00:00.")]
Setup = Annotated[
    str, typer.Option("--setup", metavar="COMMAND", help="Shell command to run first, such as 'module load openmpi'.")
]
WorkDir = Annotated[str, typer.Option("--workdir", metavar="DIR", help="Folder to work in, in the container.")]
Claim = Annotated[str, typer.Option("--claim", help="PersistentVolumeClaim for the run folder (kubernetes-mpi).")]
AsRoot = Annotated[bool, typer.Option("--as-root", help="Let Open MPI run as root, as in many containers.")]
RunFolder = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Run folder of the job.")]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="FILE", help="File to write; NAME.LAUNCHER.sh unless given.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the files and write nothing.")]
Force = Annotated[bool, typer.Option("--force", help="Write over files that exist.")]


def launch(
    file: File,
    with_: With,
    nodes: Nodes = None,
    ranks_per_host: PerHost = 1,
    set_: Overrides = None,
    hosts: Hosts = "",
    image: Image = "",
    partition: Partition = "",
    time: Time = "",
    setup: Setup = "",
    workdir: WorkDir = "/workspace",
    claim: Claim = "",
    as_root: AsRoot = False,
    out: RunFolder = None,
    output: Output = None,
    dry_run: DryRun = False,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Write what starts `decentral train FILE` on a cluster, and print the command that submits it; nothing is started.

    The number of ranks is the number of nodes of the graph. They are spread over hosts at --ranks-per-host, 1 unless
    given: 8 nodes at 4 ranks per host make 2 hosts. What is written starts a run and, started again, resumes it.
    """
    from decentral.loading import load
    from decentral.transport.job import CARRIES_FILE, LAUNCHERS, Job, launcher_named, render

    launcher = launcher_named(with_)
    overrides = [*(set_ or ()), *([f"nodes={nodes}"] if nodes is not None else ())]
    experiment = load(file, overrides).experiment
    suffix = next(iter(LAUNCHERS[launcher].files.values()))
    target = output or Path(f"{experiment.name}.{suffix}")
    carried = launcher in CARRIES_FILE
    job = Job(
        name=experiment.name,
        file=f"{experiment.name}.yaml" if carried else _from(target.parent, file),
        text=file.read_text(encoding="utf-8"),
        overrides=tuple(overrides),
        nodes=experiment.nodes,
        ranks_per_host=ranks_per_host,
        threads=experiment.threads,
        folder=_run_folder(experiment, out, None if carried else target.parent),
        here=str(target.parent.resolve()),
        host_names=tuple(name.strip() for name in hosts.split(",")) if hosts else (),
        image=image,
        partition=partition,
        time=time,
        setup=setup,
        workdir=workdir,
        claim=claim,
        as_root=as_root,
    )
    rendered = render(launcher, job, target.name)
    if not dry_run:
        _write(rendered, target.parent, force)
    _tell(rendered, job, target.parent, dry_run, json)


def _from(folder: Path, file: Path) -> str:
    """The file as a command names it that works in the folder; never mistaken for an option."""
    if file.is_absolute():
        return str(file)
    path = os.path.relpath(file, folder)
    return f"./{path}" if path.startswith("-") else path


def _run_folder(experiment: "Experiment", out: Path | None, folder: Path | None) -> str:
    if out is None:
        return f"runs/{experiment.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    return str(out) if folder is None else _from(folder, out)


def _write(rendered: "Rendered", folder: Path, force: bool) -> None:
    from decentral.measure.atomic import write_atomically

    existing = [folder / name for name in rendered.files if (folder / name).exists()]
    if existing and not force:
        raise ConfigError(f"{existing[0]} exists; write over it with --force, or elsewhere with -o")
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder; make it first")
    for name, text in rendered.files.items():
        write_atomically(folder / name, text.encode())


def _tell(rendered: "Rendered", job: "Job", folder: Path, dry_run: bool, json: bool) -> None:
    submit = rendered.submit if folder == Path() else f"cd {_quoted(folder)} && {rendered.submit}"
    if json:
        print_json({"files": rendered.files, "submit": submit, "hosts": job.hosts, "written": not dry_run})
        return
    out = stdout()
    for name, text in rendered.files.items() if dry_run else ():
        if len(rendered.files) > 1:
            out.print(f"# {name}", markup=False)
        out.print(text, markup=False, end="")
    if not dry_run:
        out.print(f"wrote {', '.join(str(folder / name) for name in rendered.files)}; start it with:", markup=False)
        out.print(f"  {submit}", markup=False)


def _quoted(folder: Path) -> str:
    from shlex import quote

    return quote(str(folder))

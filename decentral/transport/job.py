"""A job for a cluster: what the templates in `launch/templates/` need to know, and what they become.

One template is one launcher; the dict `LAUNCHERS` names them. A rendered script starts a run where its folder is empty
and resumes it where it is not, so that what a scheduler stopped goes on when it is submitted again.
"""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from decentral.errors import ConfigError, nearest
from decentral.shipped import shipped

NO_CONTROL = "must be printable text on one line"
WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
FORMS: dict[str, tuple[str, str]] = {
    "host_names": (r"[A-Za-z0-9][A-Za-z0-9._:-]*", "host names with commas between them, such as --hosts node1,node2"),
    "image": (r"[A-Za-z0-9][A-Za-z0-9._:/@-]*", "a container image, such as registry.example.org/me/train:1"),
    "partition": (rf"{WORD}(,{WORD})*", "a partition of your cluster (sinfo lists them)"),
    "time": (r"(\d+-)?\d+(:\d+){0,2}", "Slurm's form of a time, such as 04:00:00 or 1-12"),
    "workdir": (r"/[A-Za-z0-9._/-]*[A-Za-z0-9._-]", "an absolute path without spaces"),
    "claim": (r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", "the name of a PersistentVolumeClaim"),
}
"""What an option must look like: it goes to places without quotes, such as an #SBATCH line."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a launcher is to start.

    Attributes:
        name: the experiment's.
        file: the experiment file, from the folder that the script works in.
        text: its content, for launchers that carry it to their containers.
        nodes: ranks in all.
        ranks_per_host: how they are spread; divides `nodes`.
        threads: of torch, per rank.
        folder: the run folder, from the folder that the script works in.
        here: absolute path of the folder that the script is written to.

    Raises:
        ConfigError: ranks that cannot be spread evenly, or a value that has no safe place in a script.
    """

    name: str
    file: str
    text: str
    overrides: tuple[str, ...]
    nodes: int
    ranks_per_host: int
    threads: int
    folder: str
    here: str
    host_names: tuple[str, ...] = ()
    image: str = ""
    partition: str = ""
    time: str = ""
    setup: str = ""
    workdir: str = "/workspace"
    claim: str = ""
    as_root: bool = False
    hosts: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hosts", self.nodes // self.ranks_per_host)
        if self.nodes % self.ranks_per_host:
            even = [r for r in range(1, min(self.nodes, 4096) + 1) if self.nodes % r == 0]
            raise ConfigError(
                f"{self.nodes} nodes cannot be spread evenly at {self.ranks_per_host} ranks per host; "
                f"use --ranks-per-host {nearest_number(self.ranks_per_host, even)}, or another --nodes"
            )
        if self.host_names and len(self.host_names) != self.hosts:
            raise ConfigError(
                f"--hosts names {len(self.host_names)} hosts; {self.nodes} nodes at {self.ranks_per_host} ranks per "
                f"host need {self.hosts}"
            )
        for name, (form, required) in FORMS.items():
            self._check_form(name, form, required)
        for text in (self.file, self.folder, self.here, self.setup, *self.overrides):
            if not text.isprintable():
                raise ConfigError(f"{text[:80]!r} {NO_CONTROL}, to have a safe place in a script")

    def _check_form(self, name: str, form: str, required: str) -> None:
        given = getattr(self, name)
        for value in given if isinstance(given, tuple) else (given,):
            if value and not re.fullmatch(form, value):
                raise ConfigError(f"found {value[:80]!r}; required: {required}")

    @property
    def placeholders(self) -> list[str]:
        return ["localhost"] if self.hosts == 1 else [f"HOST{number}" for number in range(self.hosts)]

    @property
    def label(self) -> str:
        """The name in Kubernetes' form: at most 50 small letters, digits and dashes, a letter first."""
        text = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")
        return (text if text[:1].isalpha() else f"run-{text}")[:50].strip("-")


def nearest_number(wanted: int, numbers: list[int]) -> int:
    """The number closest to `wanted`; of two, the smaller."""
    return min(numbers, key=lambda number: (abs(number - wanted), number))


class Launcher(NamedTuple):
    """Templates and the suffix of what each becomes, the first one being what is submitted; and the command for it.

    `takes` are the fields of Job that this launcher has a use for beyond those that all have.
    """

    files: Mapping[str, str]
    submit: str
    takes: frozenset[str]
    needs: frozenset[str] = frozenset()


def _launcher(
    template: str, submit: str, takes: str, needs: str = "", more: Mapping[str, str] | None = None
) -> Launcher:
    suffix = template.removesuffix(".j2")
    files = {template: suffix} | dict(more or {})
    return Launcher(files, submit, frozenset(takes.split()), frozenset(needs.split()))


HOSTFILE = {"hostfile.j2": "hostfile"}
LAUNCHERS: dict[str, Launcher] = {
    "torchrun": _launcher("torchrun.sh.j2", "bash {script}{first}", "host_names setup"),
    "mpirun": _launcher("mpirun.sh.j2", "bash {script}", "host_names setup as_root", more=HOSTFILE),
    "slurm-srun": _launcher("slurm-srun.sh.j2", "sbatch {script}", "partition time setup"),
    "slurm-torchrun": _launcher("slurm-torchrun.sh.j2", "sbatch {script}", "partition time setup"),
    "kubernetes": _launcher("kubernetes.yaml.j2", "kubectl apply -f {script}", "image workdir setup", "image"),
    "kubernetes-mpi": _launcher(
        "kubernetes-mpi.yaml.j2", "kubectl apply -f {script}", "image workdir setup claim as_root", "image"
    ),
    "skypilot": _launcher("skypilot.yaml.j2", "sky launch -c {label} {script}", "image setup"),
}
ALIASES = {"slurm": "slurm-torchrun"}
CARRIES_FILE = frozenset({"kubernetes", "kubernetes-mpi"})
"""Launchers whose containers get the experiment file with the job, under the experiment's name."""
OPTIONS = {"host_names": "--hosts", "as_root": "--as-root"}
"""How a field of Job is spelled on the command line, where not `--field`."""


class Rendered(NamedTuple):
    files: dict[str, str]  # file name -> text; the first is what is submitted
    submit: str


def launcher_named(name: str) -> str:
    """The launcher that a name or an alias stands for.

    Raises:
        ConfigError: there is none.
    """
    known = ALIASES.get(name, name)
    if known not in LAUNCHERS:
        raise ConfigError(f"--with {name}: no such launcher{nearest(name, [*LAUNCHERS, *ALIASES])}")
    return known


def check_options(launcher: str, job: Job) -> None:
    """Refuse what this launcher would ignore, and the lack of what it cannot do without.

    Raises:
        ConfigError: either of them.
    """
    kind = LAUNCHERS[launcher]
    optional = frozenset().union(*(other.takes for other in LAUNCHERS.values()))
    given = {f.name for f in fields(job) if f.name in optional and getattr(job, f.name) != f.default}
    for name in sorted(given - kind.takes):
        users = ", ".join(other for other in LAUNCHERS if name in LAUNCHERS[other].takes)
        raise ConfigError(f"--with {launcher} has no use for {_option(name)}; it is for {users}")
    for name in sorted(kind.needs - given):
        raise ConfigError(f"--with {launcher} needs {_option(name)}: {FORMS[name][1]}")
    if launcher == "skypilot" and job.file.startswith("../"):
        raise ConfigError(
            f"{job.file} lies outside {job.here}, which is all that SkyPilot carries to its hosts; write the task to a "
            "folder above the experiment with -o"
        )


def _option(name: str) -> str:
    return OPTIONS.get(name, f"--{name}")


def render(launcher: str, job: Job, script: str) -> Rendered:
    """The launcher's files for a job, and the command that submits it.

    Args:
        launcher: a key of LAUNCHERS.
        script: name of the first file; the others take its place before the last dots.

    Raises:
        ConfigError: an option that the launcher does not know or lacks.
    """
    check_options(launcher, job)
    kind = LAUNCHERS[launcher]
    first, *others = kind.files
    stem = script.removesuffix(f".{kind.files[first].rpartition('.')[2]}")
    names = {first: script} | {other: f"{stem}.{kind.files[other]}" for other in others}
    beside = {kind.files[template]: name for template, name in names.items()}
    environment = _environment()
    texts = {
        name: environment.get_template(template).render(job=job, script=script, beside=beside)
        for template, name in names.items()
    }
    asked = "" if job.host_names or job.hosts == 1 else " FIRST_HOST"
    return Rendered(texts, kind.submit.format(script=shlex.quote(script), first=asked, label=job.label))


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(shipped("launch") / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # these are scripts and YAML, with filters of their own, and no HTML
    )
    environment.filters |= {"sh": shlex.quote, "yaml": quoted_yaml, "literal": literal_yaml, "kubernetes": unexpanded}
    return environment


def quoted_yaml(text: str) -> str:
    """A YAML scalar in double quotes, on one line."""
    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=float("inf")).rstrip("\n")


def literal_yaml(text: str) -> str:
    """A text of several lines as a YAML scalar: literal where that can be indented further, else in quotes."""
    literal = yaml.safe_dump(text, default_style="|", allow_unicode=True, width=float("inf"))
    return literal.rstrip("\n") if literal.startswith(("|\n", "|-\n")) else quoted_yaml(text)


def unexpanded(text: str) -> str:
    """Text that comes out as it is where Kubernetes expands `$(NAME)` and `$$` in arguments and variables."""
    return re.sub(r"\$(?=[$(])", "$$", text)

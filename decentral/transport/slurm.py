"""What srun says to its tasks: https://slurm.schedmd.com/srun.html, "Output environment variables"."""

import re
from collections.abc import Iterator, Mapping, Sequence

from decentral.errors import MissingEnvironmentError

VARIABLES = (
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
    "SLURM_PROCID",
    "SLURM_NTASKS",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_LOCALID",
    "SLURM_NODEID",
    "SLURM_NTASKS_PER_NODE",
    "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_TASKS_PER_NODE",
    "SLURM_STEP_NODELIST",
    "SLURM_JOB_NODELIST",
    "SLURM_NODELIST",
    "SLURM_PTY_PORT",
)
FIRST_SPECIAL_STEP = 0xFFFFFFF0
"""From here on a step id stands for the batch script, an interactive or an external step: none of them has ranks."""
FIRST_PORT, PORTS = 20_000, 10_000
"""Below Linux's own range for outgoing connections."""
MAX_HOSTS = 1_000_000


def is_step(environment: Mapping[str, str]) -> bool:
    """Whether srun started this process as a task of a step that is not a terminal."""
    step = environment.get("SLURM_STEP_ID", "")
    return step.isdecimal() and int(step) < FIRST_SPECIAL_STEP and "SLURM_PTY_PORT" not in environment


def size_variable(environment: Mapping[str, str]) -> str:
    """The step's own count where it is set: SLURM_NTASKS may still be the job's."""
    return "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"


def hosts(environment: Mapping[str, str]) -> list[str]:
    """The hosts of this step, in Slurm's order; of the job where the step's are not said."""
    for name in ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"):
        if text := environment.get(name):
            return expanded(text)
    return []


def port(environment: Mapping[str, str]) -> int:
    """A port from 20000 to 29999 that every task of the step derives, and that a neighboring job or step does not."""
    job, step = environment.get("SLURM_JOB_ID", "0"), environment["SLURM_STEP_ID"]
    if not job.isdecimal():
        raise MissingEnvironmentError(f"SLURM_JOB_ID={job!r} must be an integer")
    return FIRST_PORT + (int(job) + 997 * int(step)) % PORTS


def local_size(environment: Mapping[str, str], on: Sequence[str]) -> int | None:
    """Tasks on this host: from the list of all hosts (`2(x3),1`), else from what was asked for."""
    node = environment.get("SLURM_NODEID", "0" if len(on) == 1 else "")
    for name in ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"):
        counts = repeated(environment.get(name, ""))
        if node.isdecimal() and int(node) < len(counts):
            return counts[int(node)]
    asked = environment.get("SLURM_NTASKS_PER_NODE", "")
    return int(asked) if asked.isdecimal() else None


def repeated(text: str) -> list[int]:
    """`2(x3),1` as [2, 2, 2, 1]; [] for what has another form."""
    counts: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if found is None or len(counts) + int(found[2] or 1) > MAX_HOSTS:
            return []
        counts += [int(found[1])] * int(found[2] or 1)
    return counts


def expanded(text: str) -> list[str]:
    """`gpu[01-03,07],login` as gpu01, gpu02, gpu03, gpu07, login.

    Raises:
        MissingEnvironmentError: brackets that do not close, or a range that is none.
    """
    names: list[str] = []
    for part in re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+|[\[\]]", text):
        for name in _products(part, text):
            names.append(name)
            if len(names) > MAX_HOSTS:
                raise MissingEnvironmentError(f"more than {MAX_HOSTS} hosts in Slurm's node list {text[:80]!r}")
    return names


def _products(part: str, text: str) -> Iterator[str]:
    """Every host of one item: `r[1-2]n[1-2]` has four."""
    head, opened, rest = part.partition("[")
    if not opened:
        if not head or "]" in head:
            raise _senseless(text)
        yield head
        return
    inside, closed, tail = rest.partition("]")
    if not closed:
        raise _senseless(text)
    for number in _numbers(inside, text):
        yield from _products(f"{head}{number}{tail}", text) if "[" in tail else (f"{head}{number}{tail}",)


def _numbers(inside: str, text: str) -> Iterator[str]:
    """`01-03,07` as 01, 02, 03, 07: the width of a range's first number is kept."""
    for item in inside.split(","):
        first, dash, last = item.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise _senseless(text)
        numbers = range(int(first), int(last or first) + 1)
        if not 0 < len(numbers) <= MAX_HOSTS:
            raise _senseless(text)
        yield from (f"{number:0{len(first)}d}" for number in numbers)


def _senseless(text: str) -> MissingEnvironmentError:
    return MissingEnvironmentError(
        f"Slurm's node list {text[:80]!r} cannot be read; required: names such as gpu[01-03,07],login"
    )

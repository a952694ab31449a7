"""The network lab: several hosts with slow links between them, on one machine.

    python launch/netlab run      --hosts 4 --rate 100mbit -- COMMAND ...     the command, once on every host
    python launch/netlab torchrun --hosts 4 --rate 100mbit -- -m decentral train FILE
    python launch/netlab mpirun   --hosts 4 --rate 100mbit -- PROGRAM ...
    python launch/netlab check    --rate 100mbit                              what the links really do
    python launch/netlab clean                                                remove what a killed lab has left

Hosts are network namespaces, named host0, host1, ... and joined by one shaped link each to a switch. Needs root and
Linux with `ip` and `tc` (Debian's iproute2); netem is neither needed nor used. Standard library alone.

Exit codes: the command's own (of the host that failed first), 2 bad input, 3 the machine cannot make a lab, 130
interrupted.
"""

import json
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import iproute
import launchers
import link
import probe
import registry
import router
from faults import BAD_INPUT, LabError, StoppedError, raise_on_signals
from jobs import Jobs
from lab import Lab
from link import Link
from names import MOST_HOSTS


def main(words: Sequence[str]) -> int:
    """Runs one verb; its exit code. Whatever was made is gone by then."""
    own, command = _split(words)
    if own[:1] == ["enter"]:
        return launchers.enter(own[1:])
    asked = _parser().parse_args(own)
    if asked.verb == "probe":
        return probe.main(asked.role, asked.seconds)
    if asked.verb == "router":
        return router.main(asked.settings)
    raise_on_signals()
    return _VERBS[asked.verb](asked, command)


def _run(asked: Namespace, command: list[str]) -> int:
    def start(lab: Lab, jobs: Jobs) -> None:
        for host in range(asked.hosts):
            own = dict(text.replace("{host}", str(host)).split("=", 1) for text in asked.env)
            jobs.start(host, command, lab.environment(host) | lab.ranks(host) | own)

    return _in_lab(asked, command, start)


def _torchrun(asked: Namespace, command: list[str]) -> int:
    def start(lab: Lab, jobs: Jobs) -> None:
        for host in range(asked.hosts):
            jobs.start(host, launchers.torchrun(lab, host, command), lab.environment(host))

    return _in_lab(asked, command, start)


def _mpirun(asked: Namespace, command: list[str]) -> int:
    def start(lab: Lab, jobs: Jobs) -> None:
        jobs.start(0, launchers.mpirun(lab, command), lab.environment(0))

    return _in_lab(asked, command, start)


def _in_lab(asked: Namespace, command: list[str], start: Callable[[Lab, Jobs], None]) -> int:
    wanted = _link(asked)
    if not command:
        raise LabError(f"nothing to run: give the command after --, as in `netlab {asked.verb} -- COMMAND`", BAD_INPUT)
    for text in getattr(asked, "env", ()):
        if "=" not in text:
            raise LabError(f"--env {text}: must be NAME=VALUE", BAD_INPUT)
    if asked.dry_run:
        iproute.require(wanted.routed)
        sys.stdout.write(json.dumps(wanted.as_dict(asked.hosts)) + "\n")
        return 0
    with Lab(asked.hosts, wanted) as lab, Jobs(lab, asked.prefix) as jobs:
        start(lab, jobs)
        lab.begin()
        code = jobs.wait(asked.end_together)
        if asked.report is not None:
            asked.report.write_text(json.dumps(jobs.report()) + "\n", encoding="utf-8")
    return code


def _check(asked: Namespace, _: list[str]) -> int:
    with Lab(asked.hosts, _link(asked)) as lab:
        lab.begin()
        found = probe.measure(lab, asked.seconds)
    text = json.dumps(found, indent=2) if asked.json else "\n".join([f"asked: {lab.link.told()}", *probe.lines(found)])
    sys.stdout.write(text + "\n")
    return 0


def _clean(_: Namespace, __: list[str]) -> int:
    iproute.require(routed=False)
    found = registry.clean()
    sys.stdout.write(f"removed {len(found)} stale labs{': ' if found else ''}{', '.join(found)}\n")
    return 0


_VERBS = {"run": _run, "torchrun": _torchrun, "mpirun": _mpirun, "check": _check, "clean": _clean}


def _link(asked: Namespace) -> Link:
    if not 2 <= asked.hosts <= MOST_HOSTS:
        raise LabError(f"--hosts {asked.hosts}: must be 2 to {MOST_HOSTS}", BAD_INPUT)
    times = {name: getattr(asked, name) for name in ("latency", "jitter")}
    read = {name: None if text is None else link.duration(f"--{name}", text) for name, text in times.items()}
    return Link(
        rate_bit_s=None if asked.rate is None else link.rate(asked.rate),
        latency_s=read["latency"],
        jitter_s=read["jitter"],
        loss=None if asked.loss is None else link.share(asked.loss),
        cuts=tuple(link.cut(text) for text in asked.cut),
    ).checked(asked.hosts)


class _Parser(ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise LabError(f"{message}; see `{self.prog} --help`", BAD_INPUT)


def _parser() -> ArgumentParser:
    summary, _, details = (__doc__ or "").partition("\n\n")
    parser = _Parser("netlab", description=summary, epilog=details, formatter_class=RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, what in _HELP.items():
        verb = verbs.add_parser(name, help=what, description=what)
        if name != "clean":
            _add_link(verb)
        if name == "check":
            verb.add_argument("--seconds", type=float, default=3.0, help="per measurement (3)")
            verb.add_argument("--json", action="store_true", help="one JSON document")
        elif name != "clean":
            _add_running(verb)
    verbs.choices["run"].add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="for the command; {host} is the host's number"
    )
    end = verbs.add_parser("probe")
    end.add_argument("role")
    end.add_argument("seconds", type=float)
    verbs.add_parser("router").add_argument("settings")
    return parser


_HELP = {
    "run": "Run a command on every host at once; RANK, WORLD_SIZE and MASTER_ADDR are set.",
    "torchrun": "Run torchrun on every host, one rank each; what follows -- goes to torchrun.",
    "mpirun": "Run mpirun on the first host, with one rank on each.",
    "check": "Measure rate and round trip between two hosts.",
    "clean": "Remove labs whose process is gone.",
}


def _add_link(verb: ArgumentParser) -> None:
    few = 2 if verb.prog.endswith("check") else 4
    verb.add_argument("--hosts", type=int, default=few, help="how many (%(default)s)")
    verb.add_argument("--rate", help="of each host's link, in each direction, such as 100mbit; unlimited unless given")
    verb.add_argument("--latency", help="one way, from host to host, such as 10ms")
    verb.add_argument("--jitter", help="the latency varies by plus or minus this")
    verb.add_argument("--loss", help="of packets, such as 0.1%%")
    verb.add_argument(
        "--cut",
        action="append",
        default=[],
        metavar="HOST@TIME[+TIME]",
        help="pull a host's cable at a time after the start, for a time or for ever: 3@20s+5s",
    )


def _add_running(verb: ArgumentParser) -> None:
    verb.add_argument("--prefix", choices=("others", "all", "none"), default="others", help="whose lines are marked")
    verb.add_argument("--end-together", action="store_true", help="when one host's command fails, end the others")
    verb.add_argument("--report", type=Path, metavar="FILE", help="write there, as JSON, how each command ended")
    verb.add_argument("--dry-run", action="store_true", help="check the options and the machine, and make nothing")


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The lab's own words, and the command after the first `--`."""
    at = words.index("--") if "--" in words else len(words)
    return list(words[:at]), list(words[at + 1 :])


def run() -> int:
    """The whole program; its exit code."""
    try:
        return main(sys.argv[1:])
    except LabError as error:
        sys.stderr.write(f"netlab: {error}\n")
        return error.code
    except StoppedError as error:
        return error.code


if __name__ == "__main__":
    sys.exit(run())

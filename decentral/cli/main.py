"""The command line: verbs, and how each fault ends.

Exit codes: 0 ok, 2 bad input, 3 environment, 4 lost neighbor or timeout, 5 diverged, 130 interrupted, 143 ended by
SIGTERM after a checkpoint where that was possible. A traceback, with exit code 1, is for our own faults.
"""

import errno
import os
import sys
import warnings
from contextlib import nullcontext
from typing import Any

import typer

from decentral.cli import (
    bench,
    bench_compress,
    check,
    data,
    doctor,
    explain,
    export,
    launch,
    report,
    simulate,
    speedup,
    topology,
    topology_explain,
    topology_population,
    topology_rank,
    topology_walk,
    trace,
    train,
)
from decentral.cli.console import STARTED_BY, Prints, complain, fail
from decentral.errors import INTERRUPTED, DecentralError, MissingEnvironmentError
from decentral.transport.launcher import is_first

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
UsageError: Any = typer.BadParameter.__base__
"""typer brings its own click in newer versions and uses the package in older ones; this class is in both."""

app = typer.Typer(
    name="decentral",
    help="Decentralized deep learning on PyTorch: train by gossip on a graph, and compare with centralized training.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command("check")(check.check)
app.command("explain")(explain.explain)
app.command("simulate")(simulate.simulate)
app.command("train")(train.train)
app.command("speedup")(speedup.speedup)
app.command("launch")(launch.launch)
app.command("report")(report.report)
app.command("doctor")(doctor.doctor)
app.command("export", help=export.HELP)(export.export)
topology.app.command("explain")(topology_explain.explain)
topology.app.command("rank")(topology_rank.rank)
topology.app.command("walk")(topology_walk.walk)
topology.app.command("population")(topology_population.population)
app.add_typer(topology.app, name="topology")
app.add_typer(data.app, name="data")
bench.app.command("compress")(bench_compress.compress)
app.add_typer(bench.app, name="bench")
app.add_typer(trace.app, name="trace")


def run() -> None:
    """The entry point of `decentral` and `python -m decentral`."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # its socket warnings would stand beside our one line
    if is_first():
        warnings.showwarning = lambda message, *_: complain(f"warning: {message}")
    else:
        warnings.simplefilter("ignore")
    quiet = "--json" in sys.argv or STARTED_BY in os.environ
    with Prints.kept_off_stdout() if quiet else nullcontext():
        code = _code()
    if code and "mpi4py.MPI" in sys.modules:
        # MPI's own end waits for all ranks, and one of them may be the reason.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code or 0)


def _code() -> int | None:
    try:
        code: int | None = app(standalone_mode=False)
        if code == INTERRUPTED and STARTED_BY not in os.environ:
            complain("interrupted; what was recorded until then stays")
        return code
    except DecentralError as error:
        return fail(error)
    except UsageError as error:
        error.show()
        return int(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        complain("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone
        return 0
    except OSError as error:
        if error.errno not in UNWRITABLE:
            raise
        return fail(MissingEnvironmentError(f"cannot write {error.filename or 'the output'}: {error.strerror}"))

"""The command line. Commands import what they need when they run, so that ``--help`` is immediate."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from rosepo_bench import __version__
from rosepo_bench.base import signals, streams
from rosepo_bench.base.errors import UserError
from rosepo_bench.commands import bench, data, env, ls, plan, report, run

EXAMPLES = """examples:
  python -m rosepo_bench run --all                                the demo: three data sets, every method
  python -m rosepo_bench run --datasets movielens --methods sft,rosepo --seeds 3
  python -m rosepo_bench run --all --set losses.dpo.beta=0.1 --out runs/beta
  python -m rosepo_bench plan --all                               cells, their state, estimated time
  python -m rosepo_bench report                                   tables from the records of the last run
  python -m rosepo_bench data describe steam                      facts of a data set
  python -m rosepo_bench data audit movielens                     do candidate lists give their targets away
  python -m rosepo_bench bench --quick                            the engine against its peers, in four minutes
"""


COMMANDS = (run, plan, ls, data, report, bench, env)


def parser() -> argparse.ArgumentParser:
    """All verbs and their options."""
    top = argparse.ArgumentParser(
        prog="python -m rosepo_bench",
        description="Trains and evaluates preference alignment of LLM recommenders: RosePO and other methods.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"rosepo_bench {__version__}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for command in COMMANDS:
        command.add(verbs).set_defaults(command=command)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb. Exit status: 0 done; 1 a bug of this program; 2 unusable input, or disk, memory, GPU or standard
    output gave out; 3 some cells failed, or the reader of the output left before all was done; 130, 143 and 129: ended
    by Ctrl-C, SIGTERM and SIGHUP. Whatever is wrong is said on standard error."""
    streams.prepare()
    given = argparse.Namespace(verb="")
    try:
        with signals.caught():
            status = _run(given, arguments)
            sys.stdout.flush()
        return 128 + signals.arrived() if signals.arrived() else status
    except BaseException as error:
        streams.drop()
        status, said = _end(error, given, sys.argv[1:] if arguments is None else arguments)
        if said:
            streams.tell(said)
        return status


def _run(given: argparse.Namespace, arguments: list[str] | None) -> int:
    try:
        parser().parse_args(arguments, given)
    except SystemExit as ended:  # --help, --version, or an option that it has told the user to mend
        return int(ended.code or 0)
    if getattr(given, "offline", False):  # the hub's client reads it on import
        os.environ["HF_HUB_OFFLINE"] = "1"
    status: int = given.command.run(given)
    return status


def _end(error: BaseException, given: argparse.Namespace, arguments: list[str]) -> tuple[int, str]:
    """The exit status after ``error``, and what to say."""
    after = f"; {run.resuming(given)}" if given.verb == "run" else ""
    number = signals.arrived() or (signal.SIGINT if isinstance(error, KeyboardInterrupt) else 0)
    if number:
        return 128 + number, f"interrupted{_by(number)}{after}"
    if isinstance(error, streams.LostOutput):
        if error.unread:  # only a long command is incomplete without its end
            return (3, f"error: nobody reads the output any more{after}") if given.verb in ("run", "bench") else (0, "")
        return 2, f"error: standard output cannot be written ({error}); send it elsewhere{after}"
    if isinstance(error, UserError):
        return 2, f"error: {error}"
    if isinstance(error, MemoryError):
        return 2, f"error: out of memory in {given.verb}; free some memory and run the same command again"
    if isinstance(error, OSError) and error.filename is not None:
        return 2, f"error: {error.filename}: {error.strerror}"
    return 1, _bug(error, given, arguments)


def _by(number: int) -> str:
    return "" if number == signal.SIGINT else f" by {signal.Signals(number).name}"


def _bug(error: BaseException, given: argparse.Namespace, arguments: list[str]) -> str:
    """One line for a bug: which, and what to attach to a report of it."""
    from rosepo_bench.base import bugs

    what = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
    path = bugs.write(error, arguments, getattr(given, "out", None))
    kept = f"attach {path} (command, versions, traceback)" if path else "give the command and this line"
    return f"error: this is a bug in rosepo_bench ({what}); please report it and {kept}"

"""The command line. Commands import what they need when they run, so that ``--help`` is immediate."""

from __future__ import annotations

import argparse
import os
import sys

from rosepo_bench import __version__
from rosepo_bench.base.errors import UserError
from rosepo_bench.commands import bench, data, env, ls, plan, report, run

EXAMPLES = """examples:
  python -m rosepo_bench run --all                                the demo: three data sets, every method
  python -m rosepo_bench run --datasets movielens --methods sft,rosepo --seeds 3
  python -m rosepo_bench run --all --set losses.dpo.beta=0.1 --out runs/beta
  python -m rosepo_bench plan --all                               cells, their state, estimated time
  python -m rosepo_bench report                                   tables from the records of the last run
  python -m rosepo_bench data describe steam                      facts of a data set
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
    """Runs one verb. Exit status: 0 done, 2 unusable input, or disk, memory or GPU gave out, 3 some cells failed, 130
    interrupted."""
    given = parser().parse_args(arguments)
    if getattr(given, "offline", False):  # the hub's client reads it on import
        os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        status: int = given.command.run(given)
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except MemoryError:
        print(f"error: out of memory in {given.verb}; free some memory and run the same command again", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        after = f"; {run.resuming(given)}" if given.verb == "run" else ""
        print(f"interrupted{after}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of the output is gone, so a long command is incomplete
        return 3 if given.verb in ("run", "bench") else 0

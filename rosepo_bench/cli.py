"""The command line. Verbs import what they need when they run, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from rosepo_bench import __version__
from rosepo_bench.base.errors import UserError

EXAMPLES = """examples:
  python -m rosepo_bench run --all                                the demo: three data sets, every method
  python -m rosepo_bench run --datasets movielens --methods sft,rosepo --seeds 3
  python -m rosepo_bench run --all --set preference.beta=0.1 --out runs/beta
  python -m rosepo_bench plan --all                               cells, their state, estimated time
  python -m rosepo_bench report                                   tables from the records of the last run
  python -m rosepo_bench data describe steam                      facts of a data set
  python -m rosepo_bench bench --quick                            the engine against its peers, in four minutes
"""


def parser() -> argparse.ArgumentParser:
    """All verbs and their options."""
    top = argparse.ArgumentParser(
        prog="python -m rosepo_bench",
        description="Trains and measures preference alignment of LLM recommenders: RosePO and its rivals.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"rosepo_bench {__version__}")
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    run = verbs.add_parser("run", help="train and measure: data sets x methods x seeds, then the tables")
    _selection(run)
    run.add_argument("--force", action="store_true", help="forget the selected cells and their stages first")
    plan = verbs.add_parser("plan", help="the cells of a run, their state and estimated time")
    _selection(plan)
    plan.add_argument("--json", action="store_true", help="one JSON list, for schedulers")
    ls = verbs.add_parser("ls", help="list what there is")
    ls.add_argument("what", choices=("datasets", "methods", "losses", "metrics", "profiles", "settings"))
    data = verbs.add_parser("data", help="fetch or describe a data set").add_subparsers(
        dest="action", required=True, metavar="ACTION"
    )
    for action, text in (
        ("fetch", "fetch and verify the files"),
        ("describe", "facts of the prepared data set"),
    ):
        sub = data.add_parser(action, help=text)
        sub.add_argument("name", help="a data set of the profile, or a name of `ls datasets`")
        _profile(sub)
    report = verbs.add_parser("report", help="tables from records")
    _out(report)
    bench = verbs.add_parser("bench", help="the engine against its peers: equal numbers, then time and memory")
    bench.add_argument("--quick", action="store_true", help="a few cases, within four minutes on two cores")
    bench.add_argument("--json", type=Path, metavar="FILE", help="write the rows of the goals as a JSON list")
    bench.add_argument("--table", type=Path, metavar="CSV", help="measure nothing: the goals' table from a bench.csv")
    bench.add_argument("--into", type=Path, metavar="FILE", help="put that table between the marks in FILE")
    _out(bench, "results/runs/bench")
    verbs.add_parser("env", help="versions, device, and which implementation is live")
    return top


def _selection(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--all", action="store_true", help="every data set and method of the profile")
    verb.add_argument("--datasets", metavar="A,B", help="data sets of the profile")
    verb.add_argument("--methods", metavar="A,B", help="methods, see `ls methods`")
    verb.add_argument("--seeds", type=int, metavar="N", help="number of seeds")
    _profile(verb)
    _out(verb)


def _profile(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--profile", default="demo", help="see `ls profiles`, or a .toml file; default: demo")
    verb.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting, e.g. preference.beta=0.1",
    )
    verb.add_argument("--data-dir", type=Path, metavar="DIR", help="raw files given by hand, a folder a data set")
    verb.add_argument("--cache-dir", type=Path, metavar="DIR", help="fetched files; default: the user's cache")
    verb.add_argument("--offline", action="store_true", help="fetch nothing")


def _out(verb: argparse.ArgumentParser, folder: str = "results/runs") -> None:
    verb.add_argument(
        "--out",
        type=Path,
        default=Path(folder),
        metavar="DIR",
        help=f"output folder; default: {folder}",
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb. Exit status: 0 done, 2 input that cannot be used, 3 some cells failed, 130 interrupted."""
    given = parser().parse_args(arguments)
    if getattr(given, "offline", False):  # read by the hub's client when it is first imported
        os.environ["HF_HUB_OFFLINE"] = "1"
    from rosepo_bench.commands import verbs

    try:
        return verbs.run_verb(given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted{_after(given)}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output has gone; what takes long is then not complete
        return 3 if given.verb in ("run", "bench") else 0


def _after(given: argparse.Namespace) -> str:
    """What an interrupted verb left for the next time."""
    if given.verb != "run":
        return ""
    return f"; the same command{' without --force' if given.force else ''} goes on from here"

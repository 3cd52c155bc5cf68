"""Mutated files given to the program in its own process: raw files, profiles, checksum files, folders of results. An
input ends well with status 0, or 2 or 3 and a sentence; a changed folder of results gives the numbers that it gave
before, or its changed file is named."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from mutate import mutated, mutated_file
from raw_files import HEAD, SETS, RawSet

from rosepo_bench import cli
from rosepo_bench.data.sources import SOURCES

SECONDS = 60  # of processor time, for one input
MOST_PROBLEMS = 40


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status, -1 for an exception; what it printed; the exception's name and place."""

    status: int
    out: str
    error: str
    exception: str = ""

    def problem(self) -> str:
        """Empty where a user can do something with it."""
        if self.exception:
            return self.exception
        if self.status not in (0, 2, 3):
            return f"status {self.status}: {self.error.strip()[-300:]}"
        if "Traceback (most recent call last)" in self.out + self.error:
            return "a traceback is printed"
        if self.status == 2 and not self.error.startswith(("error: ", "usage: ")):
            return f"no sentence: {self.error[:300]!r}"
        if any(ord(letter) < 32 and letter not in "\n\t" for letter in self.out + self.error):
            return "a control character is printed"
        return ""


def call(*arguments: str) -> Ended:
    """The program's main, in this process."""
    out, error = io.StringIO(), io.StringIO()
    status, exception = -1, ""
    signal.signal(signal.SIGPROF, _late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            status = cli.main(list(arguments))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else -1
    except (KeyboardInterrupt, MemoryError):
        raise
    except BaseException as unexpected:
        exception = f"{type(unexpected).__name__}: {unexpected} ({_place(unexpected)})"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return Ended(status, out.getvalue(), error.getvalue(), exception)


class LateError(BaseException):
    """The input has taken longer than any may."""


def _late(*_: object) -> None:
    raise LateError(f"took more than {SECONDS} s of processor time")


def _place(error: BaseException) -> str:
    """Where in the package it was raised."""
    place, step = "", error.__traceback__
    while step is not None:
        file = step.tb_frame.f_code.co_filename
        if "rosepo_bench" in file:
            place = f"{file.rpartition('rosepo_bench/')[2]}:{step.tb_lineno}"
        step = step.tb_next
    return place


# ---- raw files, profiles and checksum files


def _put(folder: Path, one: RawSet, chance: random.Random | None = None) -> None:
    for name, content in one.files.items():
        (folder / name).write_bytes(content)
    if chance is not None:
        others = [content for other in SETS for content in other.files.values()]
        for name in chance.sample(sorted(one.files), 1 if chance.random() < 0.8 else len(one.files)):
            mutated_file(folder / name, chance, others)


FOLDERS = {"australian": "steam-australian", "table": "steam-australian", "mine": ""}  # others: their own names


def _world(folder: Path, one: RawSet, chance: random.Random | None = None) -> list[str]:
    """A folder with the raw files of one data set and a profile of it; the options that give them to a command."""
    data = folder / "data" / FOLDERS.get(one.name, one.name)
    data.mkdir(parents=True)
    _put(data, one, chance)
    (folder / "p.toml").write_text(HEAD + one.section.replace("DATA", str(folder / "data")))
    where = {"--profile": folder / "p.toml", "--data-dir": folder / "data", "--cache-dir": folder / "cache"}
    return [*(str(part) for pair in where.items() for part in pair), "--offline"]


def raw(folder: Path, chance: random.Random) -> str:
    """A data set with a mutated file, described."""
    one = chance.choice(SETS)
    options = _world(folder, one, chance)
    return call("data", "describe", one.name, *options).problem()


def profile(folder: Path, chance: random.Random) -> str:
    """A mutated profile, planned."""
    one = chance.choice(SETS)
    options = _world(folder, one)
    path = folder / "p.toml"
    text = path.read_text() + chance.choice(PROFILE_PARTS)
    path.write_bytes(mutated(text.encode(), chance))
    return call("plan", "--all", *options, "--out", str(folder / "out")).problem()


PROFILE_PARTS = (
    "\n[model]\nhidden = 32\nlayers = 1\nheads = 2\nvocabulary = 600\n\n[sft]\nepochs = 1.0\nbatch = 32\n",
    '\n[losses.dpo]\nbeta = 0.5\n\n[method.dpo]\nsampler = "uniform"\nrejected = 1\n',
    "\n[oracles.sasrec]\nhidden = 16\nepochs = 2\n\n[preference]\npairs = 120\nbatch = 16\n",
    "",
)


def checksums(folder: Path, chance: random.Random) -> str:
    """A mutated checksums.json; the raw files are those that it names."""
    one = chance.choice(SETS)
    options = _world(folder, one)
    first = call("data", "describe", one.name, *options)
    if first.status:
        return f"not described: {first.error}"
    book = folder / "cache" / "checksums.json"
    mutated_file(book, chance)
    if chance.random() < 0.3:
        _put(next(path.parent for path in folder.glob("data/**/*") if path.is_file()), one, chance)
        return call("data", "describe", one.name, *options).problem()
    again = call("data", "describe", one.name, *options)
    if not again.problem() and again.status == 0 and again.out.splitlines()[-1:] != first.out.splitlines()[-1:]:
        return f"described otherwise: {again.out[-300:]!r}"
    return again.problem()


# ---- a folder of results


@dataclass(frozen=True)
class Finished:
    """A finished folder of results that nobody changes, and what it gives."""

    folder: Path
    options: list[str]
    csv: str
    records: dict[str, str]


def finished(folder: Path, methods: str = "popularity,sasrec,sft,rosepo") -> Finished:
    """Runs ``methods`` on the micro profile."""
    micro = Path(__file__).resolve().parents[1] / "micro.toml"
    options = ["--profile", str(micro), "--methods", methods, "--offline", "--cache-dir", str(folder / "cache")]
    done = call("run", *options, "--out", str(folder))
    assert done.status == 0, done
    call("report", "--out", str(folder))
    return Finished(folder, options, (folder / "results.csv").read_text(), _numbers(folder))


def _numbers(out: Path) -> dict[str, str]:
    """By cell, what its record measured."""
    found = {}
    for path in sorted(out.glob("records/*/*/*/record.json")):
        with contextlib.suppress(ValueError):
            record = json.loads(path.read_text())
            parts = [record["evaluations"], record["diagnostics"], record["settings"]]
            found[f"{record['dataset']}/{record['method']}/{record['seed']}"] = json.dumps(parts, sort_keys=True)
    return found


def results(whole: Finished) -> Callable[[Path, random.Random], str]:
    """A file of the finished folder mutated, exchanged for another or lost, then ``report``, ``run`` or ``plan``."""

    def feed(folder: Path, chance: random.Random) -> str:
        out = folder / "out"
        shutil.copytree(whole.folder, out)
        verb = chance.choice(("report", "report", "report", "rescore", "run", "plan"))
        stages = verb not in ("report", "rescore") and chance.random() < 0.5
        files = [one for one in sorted(out.glob("stages/**/*" if stages else "records/**/*")) if one.is_file()]
        path = chance.choice(files)
        if stages and verb == "run":  # so that the stage is read
            shutil.rmtree(chance.choice(sorted(out.glob("records/*/*"))))
        damage = _damage(path, chance, files)
        problem = _ends(whole, out, verb, path if damage != "lost" else None)
        return problem and f"{verb} with {path.relative_to(out)} {damage}: {problem}"

    return feed


def _damage(path: Path, chance: random.Random, files: list[Path]) -> str:
    kind, before = chance.random(), path.read_bytes()
    if kind < 0.1:
        path.unlink()
        return "lost"
    if kind < 0.25:
        path.write_bytes(chance.choice([one for one in files if one.suffix == path.suffix]).read_bytes())
        return "exchanged"
    mutated_file(path, chance)
    return "changed" if path.read_bytes() != before else "as it was"


def _ends(whole: Finished, out: Path, verb: str, changed: Path | None) -> str:
    """What is wrong with how the command ends. A lost record is not missed: nothing says that there was one."""
    if verb == "run":
        return _run_again(whole, out)
    if verb == "plan":
        return call("plan", *whole.options, "--out", str(out)).problem()
    ended = call("report", *(["--rescore"] if verb == "rescore" else []), "--out", str(out))
    named = changed is None or changed.parent.name in ended.out + ended.error
    if ended.problem() or ended.status or named or verb == "rescore":
        return ended.problem()
    return "" if (out / "results.csv").read_text() == whole.csv else "other tables, and it is not named"


def _run_again(whole: Finished, out: Path) -> str:
    ended = call("run", *whole.options, "--out", str(out))
    if ended.problem() or ended.status == 2:
        return ended.problem()
    if ended.status == 3:
        lines = [line for line in ended.out.splitlines() if "FAILED" in line]
        return "" if all("UserError" in line for line in lines) else f"a cell failed: {lines}"
    found = _numbers(out)
    changed = [cell for cell, numbers in whole.records.items() if found.get(cell) != numbers]
    return f"other numbers: {', '.join(changed)}" if changed else ""


# ---- all of them

SHARES = {"raw": 14, "profile": 2, "checksums": 1, "results": 3}  # of twenty inputs


@contextlib.contextmanager
def small_releases() -> Iterator[None]:
    """MovieLens's published numbers of rows and sums do not count: the files here are tiny."""
    kept = dict(SOURCES)
    SOURCES.update({name: replace(spec, rows=0, published={}) for name, spec in kept.items()})
    try:
        yield
    finally:
        SOURCES.update(kept)


def feed_all(first: int, last: int, folder: Path, whole: Finished | None = None) -> tuple[Counter[str], list[str]]:
    """The inputs of seeds from ``first`` below ``last``: how many of each kind, and what was found."""
    kinds: dict[str, Callable[[Path, random.Random], str]] = {"raw": raw, "profile": profile, "checksums": checksums}
    if whole is not None:
        kinds["results"] = results(whole)
    turns = [kind for kind, share in SHARES.items() if kind in kinds for _ in range(share)]
    fed, problems = Counter[str](), []
    with small_releases():
        for seed in range(first, last):
            kind = turns[seed % len(turns)]
            place = folder / f"{kind}-{seed}"
            place.mkdir()
            try:
                problem = kinds[kind](place, random.Random(f"{kind} {seed}"))
            finally:
                shutil.rmtree(place)
            fed[kind] += 1
            if problem:
                problems.append(f"input {seed} ({kind}): {problem}"[:700])
            if len(problems) >= MOST_PROBLEMS:
                break
    return fed, problems


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = Path(sys.argv[3])
    counts, found = feed_all(int(sys.argv[1]), int(sys.argv[2]), given, finished(given / "whole"))
    print("\n".join([str(counts.total()), *found]))

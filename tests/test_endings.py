"""How the program ends: what it says and where, its exit status, and what is left behind."""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from running import assert_same, call, command
from safetensors import safe_open

from rosepo_bench import cli
from rosepo_bench.base import streams
from rosepo_bench.base.errors import UserError
from rosepo_bench.runs import record
from rosepo_bench.runs.cells import Cell

PROGRAM = f"{sys.executable} -m rosepo_bench"
FULL = "standard output cannot be written (No space left on device); send it elsewhere"


def plant(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Every verb raises ``error``."""

    def run(_: argparse.Namespace) -> int:
        raise error

    for one in cli.COMMANDS:
        monkeypatch.setattr(one, "run", run)


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``P`` is the program; the status is that of the first command of a pipe."""
    text = line.replace("P ", f"{PROGRAM} ") + "; exit ${PIPESTATUS[0]}"
    given = {**os.environ, **environment}
    return subprocess.run(["bash", "-c", text], env=given, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("P ls settings | head -1", 0, ""),
        ("P --help | true", 0, ""),
        ("P ls settings > /dev/full", 2, f"error: {FULL}\n"),
        ("P ls profiles > /dev/full", 2, f"error: {FULL}\n"),  # little text, written on exit alone
        ("P --help > /dev/full", 2, f"error: {FULL}\n"),
        ("P ls profiles >&-", 0, ""),
        ("P ls profiles <&- >&- 2>&-", 0, ""),
        ("P report --out /nowhere 2>&-", 2, ""),
        ("P report --out /nowhere 2> /dev/full", 2, ""),
    ],
)
def test_streams_that_are_closed_or_full(line: str, status: int, said: str) -> None:
    done = shell(line)
    assert (done.returncode, done.stderr) == (status, said)


def test_a_closed_stream_is_not_taken_by_the_next_file(tmp_path: Path) -> None:
    """Else what a library prints to the number of standard output would stand in a record."""
    code = (
        "import os, sys\nfrom rosepo_bench.base import streams\nstreams.prepare()\n"
        f"file = open({str(tmp_path / 'record')!r}, 'w')\n"
        "sys.exit(file.fileno() < 3 or None in (sys.stdin, sys.stdout, sys.stderr))"
    )
    done = subprocess.run(["bash", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code], check=False)
    assert done.returncode == 0


def test_letters_that_a_terminal_lacks_are_written_in_ascii() -> None:
    done = shell("P ls losses", PYTHONIOENCODING="ascii:strict")
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\u03b2" in done.stdout
    done = shell("P run --methods β", PYTHONIOENCODING="ascii:strict")
    assert done.returncode == 2
    assert r"unknown method '\u03b2'" in done.stderr


@pytest.mark.parametrize("verb", [["run", "--all"], ["bench"]])
def test_a_reader_that_leaves_ends_work_that_is_then_incomplete(
    verb: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(monkeypatch, streams.LostOutput(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    assert cli.main(verb) == 3
    after = "; the same command resumes from here" if verb[0] == "run" else ""
    assert capsys.readouterr().err == f"error: nobody reads the output any more{after}\n"


def test_a_run_whose_output_is_lost_is_no_failed_cell(tmp_path: Path) -> None:
    line = " ".join(command("run", tmp_path, "--methods", "popularity"))
    done = shell(f"{line} | head -1")
    assert done.returncode == 3
    assert done.stderr == "error: nobody reads the output any more; the same command resumes from here\n"
    done = shell(f"{line} > /dev/full")
    assert done.returncode == 2
    assert done.stderr == f"error: {FULL}; the same command resumes from here\n"
    assert not list(tmp_path.glob("failures/*"))
    assert call("run", tmp_path, "--methods", "popularity").returncode == 0


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UserError("seeds = 0: want 1"), "error: seeds = 0: want 1\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "error: /a/b: Permission denied\n"),
    ],
)
def test_what_is_in_the_users_hands_is_one_line(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(monkeypatch, error)
    assert cli.main(["report"]) == 2
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize("folder", [True, False])
def test_a_bug_says_that_it_is_one_and_what_to_attach(
    folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file stands in the results folder, or, where there is none, in the folder for temporary files."""
    plant(monkeypatch, TypeError("two\nlines"))
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    temporary.mkdir()
    if folder:
        out.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert cli.main(["report", "--out", str(out)]) == 1
    (file,) = tmp_path.glob("*/bug-*.txt")
    assert file.parent == (out if folder else temporary)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "error: this is a bug in rosepo_bench (TypeError: two lines); please report it and attach "
        f"{file} (command, versions, traceback)\n"
    )
    text = file.read_text()
    assert f"command: python -m rosepo_bench report --out {out}\n" in text
    assert "\ntorch 2" in text
    assert "raise error\nTypeError: two\nlines\n" in text


def test_a_bug_whose_file_cannot_be_written_is_a_line_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(monkeypatch, AssertionError())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert cli.main(["ls", "methods"]) == 1
    said = (
        "error: this is a bug in rosepo_bench (AssertionError); please report it and give the command and this line\n"
    )
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(("error", "blamed"), [(KeyError("lr"), True), (UserError("lower lr"), False)])
def test_a_bug_within_a_cell_asks_for_a_report_too(
    error: Exception, blamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the user can mend does not."""

    def run(_: Cell) -> None:
        raise error

    monkeypatch.setattr(record, "run", run)
    assert cli.main(command("run", tmp_path, "--methods", "popularity")[3:]) == 3
    (note,) = tmp_path.glob("failures/*.json")
    more = "\n  this is a bug in rosepo_bench or in the method: please report it and attach that file\n"
    assert (f"traceback in {note}{more}" in capsys.readouterr().out) == blamed


# --- signals --------------------------------------------------------------------------------------------------------

LONG = ("--methods", "sft", "--set", "sft.epochs=40")
STATUS = {signal.SIGHUP: 129, signal.SIGINT: 130, signal.SIGTERM: 143}


def started(out: Path, seconds: float) -> subprocess.Popen[str]:
    """A run that writes a checkpoint every so many seconds."""
    line = command("run", out, *LONG, "--set", f"checkpoint_seconds={seconds}")
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def checkpoint(out: Path) -> Path:
    return next(out.glob("work/*/checkpoint.safetensors"), out / "none")


def step_of(path: Path) -> int:
    with safe_open(path, framework="pt") as file:
        return int(json.loads(file.metadata()["state"])["step"])


def test_a_signal_writes_a_checkpoint_from_which_the_same_command_resumes(tmp_path: Path) -> None:
    """Without the signals there would be none but the first: the next one is due after the end."""
    straight, out = tmp_path / "straight", tmp_path / "out"
    assert call("run", straight, *LONG).returncode == 0
    with started(out, 0.1) as process:
        while not checkpoint(out).exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    steps = [step_of(checkpoint(out))]
    for number, status in STATUS.items():
        with started(out, 1000.0) as process:
            assert process.stdout
            while "goes on at step" not in (line := process.stdout.readline()):
                assert process.poll() is None
            time.sleep(0.1)
            began = time.monotonic()
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        by = "" if number == signal.SIGINT else f" by {number.name}"
        assert said.endswith(f"interrupted{by}; the same command resumes from here\n"), said
        assert "Traceback" not in said
        assert process.returncode == status
        assert time.monotonic() - began < 20
        assert [path for path in out.glob("leases/**/*") if path.is_file()] == []
        assert f"goes on at step {steps[-1]} of" in line
        steps.append(step_of(checkpoint(out)))
    assert steps == sorted(set(steps)), "each has come further"
    assert call("run", out, *LONG).returncode == 0
    assert_same(straight, out)
    assert not checkpoint(out).exists()


HELD = """
import signal, time
from rosepo_bench.base import signals
with signals.caught(), signals.held():
    print("ready", flush=True)
    while not signals.arrived():
        time.sleep(0.01)
    print("one", flush=True)
    time.sleep(60)
"""


def test_a_second_signal_ends_at_once() -> None:
    with subprocess.Popen([sys.executable, "-c", HELD], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"one\n"
        process.send_signal(signal.SIGTERM)  # `timeout` sends two: they count as one
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT
    assert said == b"\nending after this step; the same signal again ends at once\n"


def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    """As `nohup` does."""
    code = (
        "import signal\nfrom rosepo_bench.base import signals\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with signals.caught():\n    signal.raise_signal(signal.SIGHUP)\nprint('here')"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"here\n"

"""Kills runs at random moments after their start-up and compares what they end with: ``make kills``.

Folders are run by one process and by two at once, in turn. Each is then finished, and must hold the records and
predictions of an uninterrupted run, to the last bit. A process that is asked to end (SIGTERM, SIGINT) must say so
within seconds and leave no lease; one that is killed (SIGKILL) can do nothing.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from running import assert_same, call, command

STATUS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}
LONGEST = 2.5  # seconds from a process's first line to its signal
PATIENCE = 60.0  # seconds from the signal to the end, on a busy machine
OF_A_FOLDER = 10  # kills, at most
LONG = {"sft.epochs": 6, "sft.evaluations": 3, "preference.epochs": 6, "oracles.sasrec.epochs": 20}


def arguments(**changes: object) -> list[str]:
    """The methods, trained for longer than other tests do it, with a checkpoint every second."""
    settings = {**LONG, **changes, "checkpoint_seconds": 1}
    return [
        "--methods",
        "sasrec,sft,dpo,rosepo",
        *(part for key in settings for part in ("--set", f"{key}={settings[key]}")),
    ]


@dataclass
class Tally:
    """What was seen. ``slowest``: seconds from SIGTERM or SIGINT to the end."""

    kills: Counter[str] = field(default_factory=Counter)
    folders: Counter[int] = field(default_factory=Counter)
    resumed: int = 0
    slowest: float = 0.0

    def markdown(self) -> str:
        told = [
            ("kills", ", ".join(f"{count} {name}" for name, count in sorted(self.kills.items()))),
            ("folders run by one process", str(self.folders[1])),
            ("folders run by two processes at once", str(self.folders[2])),
            ("trainings that went on from a checkpoint", str(self.resumed)),
            ("longest time from SIGTERM or SIGINT to the end", f"{self.slowest:.1f} s"),
            ("folders that differ from the uninterrupted run", "0"),
        ]
        return "\n".join(["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in told), ""])


class Victim:
    """A run that is past its start-up: it has said its first line."""

    def __init__(self, out: Path, given: list[str]) -> None:
        self.out = out
        self.process = subprocess.Popen(
            command("run", out, *given), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout
        self.process.stdout.readline()

    def kill(self, number: signal.Signals, tally: Tally) -> bool:
        """Whether the signal has ended it; False: it was done before."""
        began = time.monotonic()
        self.process.send_signal(number)
        shown, said = self.process.communicate(timeout=PATIENCE)
        tally.resumed += shown.count("goes on at step")
        if "cells done" in shown:
            return False
        assert self.process.returncode == STATUS[number], f"{self.process.returncode}\n{shown}\n{said}"
        tally.kills[number.name] += 1
        print(f"{tally.kills.total()}: {number.name} in {self.out.name}", file=sys.stderr, flush=True)
        if number != signal.SIGKILL:
            tally.slowest = max(tally.slowest, time.monotonic() - began)
            assert "the same command resumes from here" in said, said
            assert "Traceback" not in said, said
            assert self.process.pid not in holders(self.out)
        return True


def holders(out: Path) -> set[int]:
    """The processes whose leases lie in the folder."""
    found = set()
    for path in out.glob("leases/**/*"):
        try:
            found.add(json.loads(path.read_text())["pid"])
        except (OSError, ValueError):  # a folder; or the other process takes or gives back this one now
            continue
    return found


def attack(out: Path, given: list[str], processes: int, kills: int, draw: random.Random, tally: Tally) -> None:
    """Starts so many processes again and again, until ``kills`` of them were killed or all is done."""
    enough = tally.kills.total() + kills
    while tally.kills.total() < enough:
        victims = [Victim(out, given) for _ in range(processes)]
        draw.shuffle(victims)
        ended = []
        for victim in victims:
            time.sleep(draw.uniform(0, LONGEST / processes))
            ended.append(victim.kill(draw.choice(list(STATUS)), tally))
        if not any(ended):
            return


def trial(folder: Path, kills: int, seed: int, given: list[str]) -> Tally:
    """``kills`` kills in as many folders as that takes, each finished and compared."""
    draw, tally, straight = random.Random(seed), Tally(), folder / "straight"
    done = call("run", straight, *given)
    assert done.returncode == 0, done.stdout + done.stderr
    while (left := kills - tally.kills.total()) > 0:
        number = tally.folders.total()
        out, processes = folder / f"killed{number}", 1 + number % 2
        attack(out, given, processes, min(left, OF_A_FOLDER, -(-kills // 2)), draw, tally)
        last = call("run", out, *given)
        assert last.returncode == 0, last.stdout + last.stderr
        tally.resumed += last.stdout.count("goes on at step")
        assert_same(straight, out)
        assert not list(out.glob("failures/*")), "a kill is no failure"
        assert not [path for path in out.glob("work/*") if any(path.iterdir())], "checkpoints are gone"
        tally.folders[processes] += 1
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(trial(Path(folder), options.kills, options.seed, arguments()).markdown(), end="")


if __name__ == "__main__":
    main()

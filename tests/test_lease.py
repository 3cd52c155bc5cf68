"""One holder at a time, and none that is dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rosepo_bench.base import lease
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.lease import Lease, held

HOLDER = """
import sys, time
from pathlib import Path
from rosepo_bench.base.lease import Lease
with Lease(Path(sys.argv[1]), "work"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
print("free", flush=True)
"""
COUNTER = """
import sys
from pathlib import Path
from rosepo_bench.base.lease import Lease
path = Path(sys.argv[1])
for _ in range(20):
    with Lease(path / "lease", "work"):
        count = int((path / "count").read_text())
        (path / "count").write_text(str(count + 1))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "work"


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lease."""
    process = start(path, 60)
    yield process
    process.kill()
    process.communicate()


def start(path: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(path), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def elsewhere(path: Path) -> None:
    """A lease as another machine would leave it: nobody here has locked it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"host": "far", "machine": "another", "pid": 1}))


def test_a_lease_is_there_while_it_is_held(path: Path) -> None:
    assert not held(path)
    with Lease(path, "work"):
        assert held(path)
        assert lease.describe(path).startswith(f"held by pid {os.getpid()} on ")
        assert not Lease(path, "work").attempt()
    assert not held(path)
    assert lease.describe(path) == ""
    assert list(path.parent.iterdir()) == []


def test_a_lease_is_given_back_after_an_error(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Lease(path, "work"):
        _ = 1 / 0
    again = Lease(path, "work")
    assert again.attempt()
    again.release()
    assert again.attempt(), "a lease can be taken again"
    again.release()


def test_an_attempt_does_not_wait_for_another_process(path: Path, holder: subprocess.Popen[str]) -> None:
    began = time.monotonic()
    assert held(path)
    assert not Lease(path, "work").attempt()
    assert time.monotonic() - began < 1
    assert f"pid {holder.pid} on" in lease.describe(path)


def test_a_living_holder_on_this_machine_is_waited_for(path: Path, said: list[str]) -> None:
    process = start(path, 1.0)
    with Lease(path, "steam.sft", stale=0.1):  # its beat is slower than that, and its lock says that it lives
        assert process.wait(5) == 0
    assert len(said) == 1
    assert said[0].startswith(f"  waiting for steam.sft: held by pid {process.pid} on ")


def test_a_stopped_holder_keeps_its_lease(path: Path, holder: subprocess.Popen[str]) -> None:
    holder.send_signal(signal.SIGSTOP)
    waiting = Lease(path, "work", stale=0.1)
    assert not waiting.attempt()
    time.sleep(0.3)
    assert not waiting.attempt()


def test_a_killed_holder_is_noticed_at_once(path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    assert path.exists()
    assert not held(path)
    ours = Lease(path, "work")
    assert ours.attempt()
    ours.release()


def test_a_stale_lease_from_elsewhere_is_taken_over(path: Path) -> None:
    elsewhere(path)
    assert held(path)
    assert not Lease(path, "work", stale=0.3).attempt(), "its age by this machine's clock says nothing"
    began = time.monotonic()
    with Lease(path, "work", stale=0.3):
        assert 0.3 <= time.monotonic() - began < 3
        assert lease.describe(path).startswith(f"held by pid {os.getpid()} on ")


def test_a_beating_lease_from_elsewhere_is_waited_for(path: Path) -> None:
    elsewhere(path)
    stop = threading.Event()

    def beat() -> None:
        for count in range(20):
            os.utime(path, (count, count))  # a clock that is far off
            time.sleep(0.05)
        stop.set()

    beats = threading.Thread(target=beat)
    beats.start()
    with Lease(path, "work", stale=0.4):
        assert stop.is_set()
    beats.join()


def test_an_old_lease_from_elsewhere_looks_free(path: Path) -> None:
    elsewhere(path)
    os.utime(path, (time.time() - lease.STALE - 5,) * 2)
    assert not held(path)


def test_the_holder_refreshes_the_time(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.02)
    with Lease(path, "work"):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 5
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - path.stat().st_mtime < 5


@pytest.mark.parametrize("text", ["", "{", "[1]", "{}"])
def test_a_lease_without_a_holder_counts_as_alive_until_it_is_stale(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    waiting = Lease(path, "work", stale=0.1)
    assert held(path)
    assert lease.describe(path) == ""
    assert not waiting.attempt()
    time.sleep(0.15)
    assert waiting.attempt()
    waiting.release()


def test_a_lease_that_was_taken_over_is_not_removed(path: Path) -> None:
    """As after a long sleep of this machine."""
    mine = Lease(path, "work")
    assert mine.attempt()
    path.unlink()
    elsewhere(path)
    mine.release()
    assert "on far" in lease.describe(path)


def test_many_processes_take_turns(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    counters = [subprocess.Popen([sys.executable, "-c", COUNTER, str(tmp_path)]) for _ in range(4)]
    assert [counter.wait(60) for counter in counters] == [0, 0, 0, 0]
    assert (tmp_path / "count").read_text() == "80"


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a file stands where a folder is needed"):
        Lease(tmp_path / "file" / "work", "work").attempt()


@pytest.mark.parametrize("target", ["precious", "nowhere"])
def test_a_link_at_a_leases_place_is_refused_and_its_target_untouched(path: Path, target: str) -> None:
    path.parent.mkdir()
    (path.parent / "precious").write_text("text")
    path.symlink_to(target)
    with pytest.raises(UserError, match="/work: a link stands where a file is needed; remove it"):
        Lease(path, "work").attempt()
    assert held(path)
    assert lease.describe(path) == ""
    assert sorted(one.name for one in path.parent.iterdir()) == ["precious", "work"]
    assert (path.parent / "precious").read_text() == "text"


@pytest.mark.parametrize(("make", "words"), [(Path.mkdir, "a folder"), (os.mkfifo, "a pipe or a device")])
def test_what_is_no_lease_is_refused(path: Path, make: Callable[[Path], None], words: str) -> None:
    path.parent.mkdir()
    make(path)
    with pytest.raises(UserError, match=f"/work: {words} stands where a file is needed; remove it"):
        Lease(path, "work").attempt()
    assert held(path)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"host": 1, "machine": "m", "pid": 1}', '{"host": "\\u001b[2J", "machine": "m", "pid": 1}', "\0"],
)
def test_a_torn_lease_says_nothing_of_its_holder(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    assert lease.describe(path) == ""
    assert not Lease(path, "work").attempt()

"""What a verb works on: paths of a profile and of the command line, data sets by name, settings that explain
themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from running import MICRO
from saved_model import save_model

from rosepo_bench import cli
from rosepo_bench.base.configure import read_profile
from rosepo_bench.commands.ls import _settings

PROFILE = MICRO.read_text().replace('source = "steam"', 'source = "atomic"\npath = "files/mine"').replace(
    'synthetic = "always"', ""
)  # fmt: skip


def atomic(folder: Path) -> None:
    """A data set in which everybody has met half of 24 items."""
    folder.mkdir(parents=True)
    events = [f"u{user}\ti{(user + step) % 24}\t1\t{881250000 + step}" for user in range(24) for step in range(12)]
    items = [f"i{item}\tTitle {item}\t1995\tDrama" for item in range(24)]
    (folder / "mine.inter").write_text(
        "\n".join(["user_id:token\titem_id:token\trating:float\ttimestamp:float", *events, ""])
    )
    (folder / "mine.item").write_text(
        "\n".join(["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq", *items, ""])
    )


def plan(tmp_path: Path, profile: str, *settings: str) -> int:
    line = ["plan", "--methods", "popularity", "--profile", profile, "--offline"]
    for setting in ("datasets.steam.candidates=5", *settings):
        line += ["--set", setting]
    return cli.main([*line, "--out", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "cache")])


def test_a_path_in_a_profile_is_relative_to_the_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic(tmp_path / "project" / "files")
    (tmp_path / "project" / "mine.toml").write_text(PROFILE)
    (tmp_path / "elsewhere").mkdir()
    for folder, profile in ((tmp_path, "project/mine.toml"), (tmp_path / "elsewhere", "../project/mine.toml")):
        monkeypatch.chdir(folder)
        assert plan(tmp_path, profile) == 0
    absolute = PROFILE.replace("files/mine", str(tmp_path / "project/files/mine"))
    (tmp_path / "elsewhere" / "mine.toml").write_text(absolute)
    assert plan(tmp_path, "mine.toml") == 0
    assert read_profile("mine.toml")["datasets"]["steam"]["path"] == str(tmp_path / "project/files/mine")


def test_a_path_of_set_is_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    atomic(tmp_path / "here")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "mine.toml").write_text(PROFILE)
    monkeypatch.chdir(tmp_path)
    assert plan(tmp_path, "project/mine.toml", "datasets.steam.path=here/mine") == 0
    assert plan(tmp_path, "project/mine.toml") == 2
    assert "data set steam: atomic files of project/files/mine: " in capsys.readouterr().err
    assert cli.main(["plan", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "whose relative paths are relative to its folder" in told
    assert "relative paths are relative to the working directory" in told


def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.toml").write_text(PROFILE)
    long = "a" * 3000
    assert (
        plan(tmp_path, str(tmp_path / "mine.toml"), "datasets.steam.source=steam", f"datasets.steam.path={long}") == 2
    )
    said = capsys.readouterr().err
    assert "File name too long" in said
    assert "Traceback" not in said


def facts(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    rows = re.findall(r"^\| ([^|]+?) +\| ([^|]+?) +\|", capsys.readouterr().out, re.MULTILINE)
    return dict(rows)


@pytest.mark.parametrize("name", ["steam", "goodreads"])
def test_data_describe_honours_settings(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a data set of the profile, and of a source that the profile does not use."""
    line = [
        "data",
        "describe",
        name,
        "--offline",
        "--profile",
        str(MICRO),
        "--set",
        f"datasets.{name}.replica_users=150",
    ]
    assert cli.main(line) == 0
    before = facts(capsys)
    assert cli.main([*line, "--set", f"datasets.{name}.core=4", "--set", f"datasets.{name}.split=temporal"]) == 0
    after = facts(capsys)
    assert (before["split"], after["split"]) == ("leave_one_out", "temporal")
    assert int(after["interactions"].replace(",", "")) != int(before["interactions"].replace(",", ""))


def test_data_describe_names_the_data_set_as_the_profile_does(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["data", "describe", "steam", "--offline", "--profile", str(MICRO)]
    assert cli.main([*line, "--set", "datasets.steam.core=60"]) == 2
    assert "error: data set steam: steam-replica: nobody is left in the 60-core" in capsys.readouterr().err
    assert cli.main([*line[:2], "steem", *line[3:]]) == 2
    assert "error: unknown data set 'steem'; did you mean 'steam'?" in capsys.readouterr().err
    assert cli.main([*line, "--set", "datasets.steam.users=-1"]) == 2
    assert "datasets.steam.users = -1" in capsys.readouterr().err


def test_settings_tell_what_they_take() -> None:
    """Every setting: its type or its values, its range, and its default, as a profile writes them."""
    told = dict(_settings())
    takes = r"\((a whole number|a number|text|true or false|'|a list|a table|an? \w+[;)])"
    assert [name for name, text in told.items() if not re.search(takes, text)] == []
    for name, text in {
        "seeds": "(a whole number >= 1 and <= 1,000; default 1)",
        "sft.warmup": "(a number >= 0 and < 1; default 0.05)",
        "sft.betas": "(a list of 2 values, each a number >= 0 and < 1; default [0.9, 0.999])",
        "sft.schedule": "('cosine' or 'linear' or 'constant'; default \"cosine\")",
        "model.checkpointing": "(true or false; default false)",
        "protocols": '(a list of values, each text; default ["candidates-sum"])',
        "oracles.sasrec.dropout": "(a number >= 0 and < 1; default 0.2)",
        "method.NAME.rejected": "(a whole number >= 1 and <= 1,000; default 1)",
        "smoothings.predicted.oracle": "(an oracle; default sasrec)",
        "datasets.NAME.source": "(text)",
    }.items():
        assert told[name].endswith(text), told[name]


def test_a_tokenizer_larger_than_the_head_is_refused_by_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model("qwen3", tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(re.sub(r'"vocab_size": \d+', '"vocab_size": 100', config.read_text()))
    line = ["plan", "--methods", "sft", "--profile", str(MICRO), "--out", str(tmp_path / "out"), "--offline"]
    assert cli.main([*line, "--cache-dir", str(tmp_path), "--set", f"model.name=hf:{tmp_path / 'model'}"]) == 2
    assert re.search(r"its tokenizer has \d+ tokens, more than its head has rows \(100\)", capsys.readouterr().err)

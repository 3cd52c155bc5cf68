"""What a user may give by mistake or in malice is refused by `plan` as by `run`, in one short sentence and before any
work: nothing is written, fetched or computed."""

from __future__ import annotations

import codecs
import math
from pathlib import Path

import pytest
from running import MICRO

from rosepo_bench import cli
from rosepo_bench.base.component import Component, setting
from rosepo_bench.base.config import RunConfig
from rosepo_bench.base.configure import read_profile, set_key, validate
from rosepo_bench.base.errors import UserError, nearest, shown
from rosepo_bench.data import fetch

DIGITS = "1" * 5000
DEEP = "[" * 3000 + "]" * 3000


def line(verb: str, out: Path, *arguments: str, profile: Path = MICRO) -> list[str]:
    return [verb, "--all", "--profile", str(profile), "--out", str(out / "out"), "--cache-dir", str(out), *arguments]


def status(arguments: list[str]) -> int:
    """The exit status; argparse leaves by SystemExit."""
    try:
        return cli.main(arguments)
    except SystemExit as end:
        return int(str(end.code))


ABSURD = [
    ("seeds=100000000", "seeds = 100000000: Input should be less than or equal to 1000"),
    ("threads=1000000", "threads = 1000000: Input should be less than or equal to 1024"),
    ("model.vocabulary=1000000000", "model.vocabulary = 1000000000"),
    ("datasets.steam.replica_users=1000000000000", "datasets.steam.replica_users = 1000000000000"),
    ("method.dpo.rejected=1000000", "method.dpo.rejected = 1000000: want >= 1 and <= 1,000"),
    ("method.dpo.rounds=1000000", "method.dpo.rounds = 1000000: want >= 1 and <= 100"),
    ("oracles.sasrec.epochs=1000000000000", "oracles.sasrec.epochs = 1000000000000: want at most 1,000,000,000"),
    (f"first_seed={'9' * 25}", "want a number of at most 15 digits"),
    (f"losses.dpo.beta={'1' * 400}", "losses.dpo.beta = 1111"),
    (f"threads={DIGITS}", "it holds a number of thousands of digits"),
    ("sft.lr=1e400", "sft.lr = inf: want a finite number"),
    ("sft.lr=nan", "sft.lr = nan: want a finite number"),
    ("losses.dpo.beta=nan", "losses.dpo.beta = nan: want a finite number"),
    ("sft.lr=-1", "sft.lr = -1: Input should be greater than 0"),
    (f"about={DEEP}", "nested too deeply"),
    (".".join(["datasets.steam.overrides.method", *"a" * 3000]) + "=1", "nested more than 16 levels deep"),
    (f"about={'a' * 5000}", "a text of 5000 characters, more than 4000"),
    (f"{'a' * 5000}=1", "a key of 5000 characters, more than 200"),
    ('about="a\\u001b[31mb"', "about: a text holds a character that cannot be printed: 'a\\x1b[31mb'"),
    ("about=\udc80", "about: a text holds a character that cannot be printed"),
    ("sft..lr=1", "expected key=value"),
    (f"model.name=hf:{'a' * 600}", "model.name = "),
    ("method.dpo.sampler=nosuch", "unknown sampler 'nosuch'; known: mixed, popularity, self_hard, semantic, uniform"),
    ("datasets.steam.users=1", "steam: 1 test user: an interval needs at least two"),
    ("smoothings.predicted.folds=1000", "smoothing.folds = 1000: must be between 2 and 120, the number of users"),
    ("datasets.steam.core=60", "data set steam: steam-replica: nobody is left in the 60-core"),
    ("validation.metric=hr@1000", "unknown metric 'hr@1000'; known: "),
]


TOGETHER = [
    (
        ["prompt.candidates=true", "datasets.steam.candidates=3", "method.dpo.loss=sdpo", "method.dpo.rejected=3"],
        "data set steam: method.dpo.rejected = 3: prompts list candidates = 3, the chosen item among them",
    ),
    (
        ["model.training=lora", "model.lora_dropout=0.1", "preference.dropout=true", "method.dpo.loss=kto"],
        "method.dpo: loss 'kto' looks at a whole step without dropout; set preference.dropout = false",
    ),
]


@pytest.mark.parametrize(("given", "said"), TOGETHER)
@pytest.mark.parametrize("verb", ["plan", "run"])
def test_settings_that_do_not_go_together_are_refused(
    verb: str, given: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [part for one in given for part in ("--set", one)]
    assert status(line(verb, tmp_path, "--offline", *settings)) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_settings_that_nearly_do_not_go_together_are_taken(tmp_path: Path) -> None:
    """One rejected item fewer; no dropout; a loss that looks at pairs."""
    fewer = [*TOGETHER[0][0][:-1], "method.dpo.rejected=2"]
    for given in (fewer, [*TOGETHER[1][0][:-2], "method.dpo.loss=kto"], TOGETHER[1][0][:-1]):
        settings = [part for one in given for part in ("--set", one)]
        assert status(line("plan", tmp_path, "--offline", *settings, "--methods", "dpo")) == 0


@pytest.mark.parametrize(("given", "said"), ABSURD, ids=[shown(case[0]) for case in ABSURD])
def test_absurd_settings_are_refused_by_plan(
    given: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status(line("plan", tmp_path, "--offline", "--set", given)) == 2
    told = capsys.readouterr().err
    assert said in told
    assert len(told) < 400
    assert list(tmp_path.iterdir()) == []


OPTIONS = [
    (["--out", ""], "argument --out: '': an empty name; give a folder"),
    (["--data-dir", ""], "argument --data-dir: '': an empty name"),
    (["--data-dir", "a" * 5000], "File name too long; give a folder"),
    (["--seeds", DIGITS], "want a whole number"),
    (["--seeds", "1.5"], "argument --seeds: '1.5': want a whole number"),
    (["--seeds", "100000000"], "seeds = 100000000: Input should be less than or equal to 1000"),
    (["--seeds", "0"], "seeds = 0"),
    (["--seeds", "1", "--seeds", "2"], "--seeds is given twice; leave one"),
    (["--datasets", "steam", "--datasets", "steam"], "--datasets is given twice; leave one"),
    (["--profile", "demo"], "--profile is given twice; leave one"),
    (["--set", "sft.lr=1e-3", "--set", "sft.lr=1e-4"], "--set 'sft.lr' is given twice; leave one"),
    (["--datasets", "steam,steam"], "--datasets: 'steam' is listed twice"),
    (["--methods", "../x"], "unknown method '../x'; known: "),
    (["--methods", "\x1b[31mdpo"], "methods: a text holds a character that cannot be printed: '\\x1b[31mdpo'"),
    (["--methods", "-dpo"], "expected one argument"),
    (["--methods", "a" * 3000], f"unknown method '{'a' * 59}…; known: "),
]


@pytest.mark.parametrize("verb", ["plan", "run"])
@pytest.mark.parametrize(("given", "said"), OPTIONS, ids=[shown(" ".join(case[0])) for case in OPTIONS])
def test_absurd_options_are_refused(
    verb: str, given: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = line(verb, tmp_path, "--offline") if given[0] != "--out" else [verb, "--all", "--profile", str(MICRO)]
    assert status([*base, *given]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert "Traceback" not in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", "/tmp/x", "-x", "a b", "a,b", "a.b", "a\x1b[31mb", "a" * 65, "é", "a\n"]
)
def test_a_data_set_has_a_name_that_a_folder_can_have(name: str) -> None:
    table = read_profile(str(MICRO))
    table["datasets"] = {name: table["datasets"]["steam"]}
    with pytest.raises(UserError, match=r"^(configuration: )?datasets") as error:
        validate(table, RunConfig)
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("name", ["steam", "ml-100k", "My_data-2", "2024", "a" * 64])
def test_plain_names_are_taken(name: str) -> None:
    table = read_profile(str(MICRO))
    table["datasets"] = {name: table["datasets"]["steam"]}
    assert list(validate(table, RunConfig).datasets) == [name]


def written(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    return str(path)


def test_a_profile_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    text = MICRO.read_bytes()
    assert read_profile(written(tmp_path / "micro.toml", codecs.BOM_UTF8 + text)) == read_profile(str(MICRO))
    assert read_profile(written(tmp_path / "micro.toml", text.replace(b"\n", b"\r\n"))) == read_profile(str(MICRO))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("seeds = 1".encode("utf-16"), "it is in UTF-16; save it in UTF-8"),
        ('seeds = 1\nabout = "é"'.encode("latin-1"), "line 2 holds the byte 0xe9; save it in UTF-8"),
        (f"about = {DEEP}".encode(), "nested too deeply"),
        (f"seeds = {DIGITS}".encode(), "it holds a number of thousands of digits"),
        (b"# " + b"x" * 10_000_000, "more than 1,000,000 bytes"),
        (b"seeds = 1\x00", "not readable as TOML in UTF-8"),
    ],
)
def test_a_profile_that_is_none_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        read_profile(written(tmp_path / "mine.toml", content))


def test_no_profile_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    for name, said in (
        ("/etc/passwd", "unknown profile '/etc/passwd'; known: demo, reference, small; a file's name ends in .toml"),
        (str(tmp_path / "folder.toml"), r"folder\.toml': no such file"),
        ("a" * 5000 + ".toml", "cannot be read: File name too long"),
        ("\x1b[31m.toml", r"profile '\\x1b\[31m\.toml': no such file"),
    ):
        with pytest.raises(UserError, match=said) as error:
            read_profile(name)
        assert len(str(error.value)) < 400


def test_of_many_problems_ten_are_told() -> None:
    table = read_profile(str(MICRO)) | {f"k{number}": 1 for number in range(1000)}
    with pytest.raises(UserError, match=r"and 990 more such problems$") as error:
        validate(table, RunConfig)
    assert len(str(error.value).splitlines()) == 11


@pytest.mark.parametrize(
    ("metric", "size", "refused"),
    [("hr@10", 10, True), ("hr@10", 5, True), ("hr@10", 11, False), ("hr@1", 2, False), ("ndcg@10", 5, False)],
)
def test_a_metric_that_watches_a_constant_is_refused(
    metric: str, size: int, refused: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ["--set", f"validation.metric={metric}", "--set", f"datasets.steam.candidates={size}"]
    said = f"data set steam: validation.metric = '{metric}' is the same for every rank in a list of candidates = {size}"
    for verb in ("plan", "run") if refused else ("plan",):
        assert status(line(verb, tmp_path, "--offline", *settings, "--methods", "popularity")) == (2 if refused else 0)
        assert (said in capsys.readouterr().err) == refused


def test_a_component_refuses_what_no_float_holds() -> None:
    class Loud(Component):
        name = "loud"
        volume: float = setting(1.0, gt=0)
        steps: int = setting(1, ge=1)

    with pytest.raises(UserError, match=r"^loud\.volume = inf: want a finite number"):
        Loud(volume=10**400)
    with pytest.raises(UserError, match=r"^loud\.steps = a int too large to show: want at most 1,000,000,000"):
        Loud(steps=10**5000)
    assert Loud(steps=10**9, volume=10**9).volume == 1e9


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("sft.epoch", ["sft.epochs"], "did you mean 'sft.epochs'?"),
        ("DPO", ["cdpo", "dpo"], "did you mean 'dpo'?"),
        ("score", ["core", "seed"], "did you mean 'core'?"),
        ("gamma", ["beta", "mamba"], "known: beta, mamba"),
        ("sampler", ["samples"], "did you mean 'samples'?"),
        ("users", ["seeds", "source"], "known: seeds, source"),
        ("mrr", ["hr@1"], "known: hr@1"),
        ("hr@20", ["hr@10", "hr@5"], "known: hr@10, hr@5"),
        ("ndgc@10", ["ndcg@10", "ndcg@5"], "did you mean 'ndcg@10'?"),
        ("x", [], "none is known"),
    ],
)
def test_only_what_is_near_is_suggested(name: str, known: list[str], said: str) -> None:
    assert nearest(name, known) == said


def test_of_many_names_some_are_listed() -> None:
    said = nearest("zzz", [f"name{number:03}" for number in range(1000)])
    assert said.startswith("known: name000, name001")
    assert said.endswith("name039 and 960 more")


def test_values_are_shown_short_and_without_control_characters() -> None:
    assert shown("a\x1b[31m\n\u202e") == "'a\\x1b[31m\\n\\u202e'"
    assert shown("a" * 10_000) == f"'{'a' * 59}…"
    assert shown(10**5000) == "a int too large to show"
    assert shown(math.pi) == "3.141592653589793"


def test_a_text_within_limits_is_taken() -> None:
    table = read_profile(str(MICRO))
    set_key(table, "about", "two\nlines, a ε and a 電影")
    assert validate(table, RunConfig).about.endswith("電影")


def test_a_plan_fetches_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo's MovieLens is not there: its cells are listed without what only its files tell."""

    def refuse(*_: object) -> Path:
        raise AssertionError("it fetches")

    monkeypatch.setattr(fetch, "_http", refuse)
    monkeypatch.setattr(fetch, "_pip", refuse)
    arguments = ["--out", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "cache"), "--methods", "popularity,dpo"]
    assert cli.main(["plan", *arguments]) == 0
    told = capsys.readouterr().out
    assert "| movielens  | not fetched | dpo        |      0 |              | waiting | ?         |" in told
    assert "6 of 6 cells to do, about" in told
    assert "without movielens: `data fetch NAME`, or the run, fetches what is needed" in told
    assert list(tmp_path.iterdir()) == []


def test_all_settings_are_checked_before_anything_is_fetched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mistake is in the last data set; the one before it would be fetched."""

    def refuse(*_: object) -> Path:
        raise AssertionError("it fetches")

    monkeypatch.setattr(fetch, "download", refuse)
    folders = ["--out", str(tmp_path / "out"), "--cache-dir", str(tmp_path / "cache")]
    for given, said in (
        ("datasets.goodreads.overrides.sft.epoch=1", "did you mean 'epochs'?"),
        ("datasets.goodreads.overrides.method.rosepo.rejectd=1", "did you mean 'rejected'?"),
        ("datasets.goodreads.overrides.validation.metric=mrr", "unknown metric 'mrr'"),
    ):
        assert cli.main(["run", "--all", *folders, "--set", given]) == 2
        assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_plan_without_a_network_says_which_files_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, cache = str(tmp_path / "out"), str(tmp_path / "cache")
    assert cli.main(["plan", "--all", "--offline", "--out", out, "--cache-dir", cache]) == 2
    assert "data set movielens: ml-100k: offline: nothing was fetched. Put u.data and u.item" in capsys.readouterr().err


def test_a_plan_for_a_model_of_the_hub_does_not_fetch_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(line("plan", tmp_path, "--set", "model.name=hf:nobody/has-this")) == 2
    assert "planning downloads nothing; fetch it with `hf download nobody/has-this`" in capsys.readouterr().err
    without = line("plan", tmp_path, "--set", "model.name=hf:nobody/has-this", "--methods", "popularity")
    assert status(without) == 0
    assert list(tmp_path.iterdir()) == []

"""The configuration: a frozen, strict schema. An unknown key, a wrong type or a value out of range is refused by
name."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rosepo_bench.errors import UserError, nearest


class Section(BaseModel):
    """Frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class DatasetConfig(Section):
    """One data set: which files, how they are filtered and split, who is evaluated."""

    source: str = Field(description="a name of `ls datasets`, or `atomic` for RecBole .inter/.item files at `path`")
    path: str = Field(
        "", description="folder (atomic: path prefix) of the raw files; empty: DATA_DIR/source, then fetched"
    )
    core: int = Field(1, ge=1, description="k of the k-core on users and items; 1 keeps everybody")
    split: Literal["leave_one_out", "temporal"] = "leave_one_out"
    users: int = Field(0, ge=0, description="evaluate a frozen subset of this many test users; 0: all")
    synthetic: Literal["auto", "never", "always"] = Field(
        "auto", description="auto: the replica stands in when files are absent (steam, goodreads)"
    )
    replica_users: int = Field(800, ge=50, description="users of the synthetic replica")
    seed: int = Field(0, ge=0, description="draws candidates, user subset and replica; not the run's seed")
    candidates: int = Field(20, ge=2, description="length of each candidate list, target included")
    overrides: dict[str, Any] = Field(
        default_factory=dict, description='dotted keys for this data set, e.g. "sft.epochs" = 3'
    )


class ModelConfig(Section):
    """The language model: `tiny` (a Llama from scratch) or `hf:NAME_OR_PATH`."""

    name: str = "tiny"
    hidden: int = Field(128, ge=8, description="tiny only: width")
    layers: int = Field(3, ge=1, description="tiny only")
    heads: int = Field(4, ge=1, description="tiny only")
    vocabulary: int = Field(4000, ge=300, description="tiny only: size of the BPE trained on the training titles")
    context: int = Field(1024, ge=16, description="tiny only: longest sequence of tokens")
    training: Literal["full", "lora"] = "full"
    lora_rank: int = Field(8, ge=1)
    lora_alpha: int = Field(32, ge=1)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"


class PromptConfig(Section):
    """What the model reads. The template's text belongs to the data set (engine/prompts.py)."""

    history: int = Field(19, ge=1, description="longest history in a prompt, in items")
    candidates: bool = Field(False, description="list the candidates in the prompt")


class SFTConfig(Section):
    """Supervised fine-tuning: every step of a training window is a response."""

    epochs: float = Field(1.0, gt=0)
    lr: float = Field(3e-3, gt=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    batch: int = Field(128, ge=1, description="responses (steps) of one optimizer step")


class PreferenceConfig(Section):
    """Preference training. A method sets sampler, loss and how ε comes about; these are the common settings."""

    pairs: int = Field(2000, ge=1, description="most training pairs; users are drawn, then their last steps")
    steps_per_user: int = Field(5, ge=1, description="a user's last training steps that become pairs")
    validation_pairs: int = Field(1000, ge=1, description="most held-out pairs for the margin's accuracy and for tau")
    epochs: int = Field(1, ge=1)
    lr: float = Field(5e-4, gt=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    batch: int = Field(64, ge=1, description="pairs of one optimizer step")
    beta: float = Field(1.0, gt=0)
    epsilon: float = Field(0.1, ge=0, le=0.5, description="the one ε of cdpo")
    epsilon_max: float = Field(0.5, gt=0, le=0.5, description="cap of the oracle's ε; at most 0.45 for the robust form")
    form: Literal["cdpo", "robust"] = "cdpo"
    self_hard_pool: Literal["candidates", "catalogue"] = "candidates"
    semantic_anchor: Literal["history", "target"] = "history"
    semantic_temperature: float = Field(0.05, gt=0)
    popularity_exponent: float = Field(1.0, ge=0)
    impl: Literal["auto", "cpp", "cuda", "reference"] = "auto"


class SASRecConfig(Section):
    """SASRec (arXiv 1808.09781) with a full softmax over the catalogue."""

    hidden: int = Field(64, ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)
    length: int = Field(50, ge=2, description="longest history, in items")
    epochs: int = Field(10, ge=1)
    lr: float = Field(2e-3, gt=0)
    batch: int = Field(32, ge=1, description="windows of one optimizer step")


class OracleConfig(Section):
    """The preference oracle: SASRec cross-fitted by user folds."""

    folds: int = Field(2, ge=2)
    probes: int = Field(10_000, ge=2, description="most users on whom the oracle itself is measured")
    correct_for_sampler: bool = Field(
        True, description="add log q(y_w|x,y_l) - log q(y_l|x,y_w) where the law is known"
    )


class ScoringConfig(Section):
    """How candidates are ranked by a language model."""

    score: Literal["sum", "mean"] = Field("sum", description="of the response's token log-probs")
    batch_tokens: int = Field(4096, ge=64, description="tokens of one forward pass")


class RunConfig(Section):
    """A whole run: data sets x methods x seeds."""

    profile: str
    about: str = Field("", description="what `ls profiles` says of it")
    seeds: int = Field(1, ge=1, description="seeds first_seed, first_seed + 1, …")
    first_seed: int = Field(0, ge=0)
    threads: int = Field(0, ge=0, description="torch threads; 0: as many as the machine gives")
    batch_tokens: int = Field(4096, ge=64, description="tokens of one forward and backward pass")
    checkpoint_seconds: float = Field(15.0, gt=0, description="time between checkpoints within a training stage")
    methods: list[str]
    datasets: dict[str, DatasetConfig]
    model: ModelConfig = ModelConfig()
    prompt: PromptConfig = PromptConfig()
    sft: SFTConfig = SFTConfig()
    preference: PreferenceConfig = PreferenceConfig()
    sasrec: SASRecConfig = SASRecConfig()
    oracle: OracleConfig = OracleConfig()
    scoring: ScoringConfig = ScoringConfig()
    method: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="[method.NAME]: preference settings of one method"
    )


def profile_names() -> list[str]:
    """The profiles that travel with the package."""
    folder = files("rosepo_bench") / "profiles"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_profile(name: str) -> dict[str, Any]:
    """The TOML table of a packaged profile, or of a file when ``name`` ends in ``.toml``."""
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"profile {name}: no such file")
        text, profile = path.read_text(encoding="utf-8"), path.stem
    elif name in profile_names():
        text = (files("rosepo_bench") / "profiles" / f"{name}.toml").read_text(encoding="utf-8")
        profile = name
    else:
        raise UserError(f"unknown profile {name!r}; {nearest(name, profile_names())}")
    try:
        return {"profile": profile, **tomllib.loads(text)}
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"profile {name}: not valid TOML: {error}") from error


def set_key(table: dict[str, Any], dotted: str, value: Any) -> None:
    """Sets ``a.b.c`` in nested tables; the schema judges the result."""
    *parents, last = dotted.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise UserError(f"--set {dotted}: {parent!r} is a value, not a section")
    table[last] = value


def parse_setting(text: str) -> tuple[str, Any]:
    """``key=value`` with the value read as TOML (``1e-4``, ``true``, ``"text"``); bare words are text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {text!r}: expected key=value, e.g. --set preference.beta=0.1")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()


def validate(table: dict[str, Any]) -> RunConfig:
    """The schema's verdict, in words for people."""
    try:
        return RunConfig.model_validate(table)
    except ValidationError as error:
        raise UserError("\n".join(_explain(dict(problem)) for problem in error.errors())) from None


def for_dataset(config: RunConfig, name: str) -> RunConfig:
    """The configuration as it stands for one data set: its ``overrides`` applied."""
    table = config.model_dump()
    for dotted, value in config.datasets[name].overrides.items():
        if dotted.split(".")[0] in ("datasets", "methods", "profile", "seeds"):
            raise UserError(f"datasets.{name}.overrides: {dotted!r} cannot differ between data sets")
        set_key(table, dotted, value)
    return validate(table)


def _explain(problem: dict[str, Any]) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"configuration: unknown key {path!r}; {nearest(str(problem['loc'][-1]), _siblings(problem['loc']))}"
    if problem["type"] == "missing":
        return f"configuration: {path!r} is missing"
    return f"configuration: {path} = {problem['input']!r}: {problem['msg']}"


def _siblings(location: tuple[Any, ...]) -> list[str]:
    """The known keys of the section that holds the last element of ``location``."""
    section: type[BaseModel] = RunConfig
    for part in location[:-1]:
        field = section.model_fields.get(str(part))
        if field is None:  # the free name below `datasets`
            continue
        if part == "datasets":
            section = DatasetConfig
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            section = field.annotation
    return list(section.model_fields)

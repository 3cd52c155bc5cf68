"""What a record holds, as far as reports read it, and the hashes in it. Parts may hold more than is named here."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import digest

SCHEMA = 2

Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class Measured(Part):
    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


class File(Part):
    """A file beside the record; of schema 1's there is no hash."""

    file: str = Field(pattern=r"^[^./\x00][^/\x00]*$")
    sha256: Hash | None


class Facts(Part):
    """Of a protocol; ``size``: the length of its lists, where they have one."""

    size: int | None = None


class Evaluation(Part):
    facts: Facts
    predictions: File
    metrics: dict[str, Measured]


class Noise(Part):
    """``replaced``: how many training and validation interactions hold another item than the files say."""

    rate: float
    law: str
    replaced: int


class Data(Part):
    """``digest`` is that of the data without noise, ``noise`` what was done to them; None: nothing. ``tied_share`` and
    what follows: see data/population.py; records made before it was known lack them."""

    source: str
    kind: str
    digest: str
    split: str
    candidates_sha256: str
    users: int
    tied_share: float | None = None
    noise: Noise | None = None
    ties: Literal["file", "shuffled", "item"] = "file"
    tied_neighbours: float | None = None
    tied_ascending: float | None = None
    cloned_share: float | None = None
    copied_share: float | None = None
    later_share: float | None = None
    test_users: int | None = None
    left_out: int = 0
    left_out_first: list[str] = []


class Training(Part):
    """``curves``: lists of one length, of which ``step`` says where. ``validation``: [step, value] of each look."""

    curves: dict[str, list[float | None]] = {}
    validation: list[list[float]] = []
    best_step: int | None = None
    steps: int | None = None
    planned_steps: int | None = None

    @model_validator(mode="after")
    def _lengths(self) -> Training:
        if len({len(values) for values in self.curves.values()}) > 1:
            raise ValueError(f"curves differ in length: { {name: len(one) for name, one in self.curves.items()} }")
        if any(len(look) != 2 for look in self.validation):
            raise ValueError("validation is a list of [step, value]")
        return self


class Spread(Part):
    mean: float
    sd: float


class Share(Measured):
    value: float = Field(ge=0, le=1)
    n: int = Field(ge=1)


class Shares(Part):
    before: Share | None
    after: Share | None


class Margins(Part):
    before: Measured | None = None
    after: Measured | None = None


class Changed(Part):
    share: float
    n: int


class Preference(Part):
    pairs_seen: int
    sampler: str
    loss: str
    beta: float | None
    epsilon: Spread | None
    validation_epsilon: Spread | None
    margin: Margins = Margins()
    margin_accuracy: Shares
    changed_top: Changed


class Gaps(Part):
    epsilon_gap: Measured
    epsilon_gap_without_folds: Measured


class Uniform(Gaps):
    tau: float


class Fit(Part):
    tau: float
    accuracy: float
    low: float
    high: float
    n: int


class Oracle(Gaps):
    accuracy: Measured
    uniform: Uniform
    temperatures: dict[str, Fit]


class SelfCheck(Part):
    """In nats: of log-probs over the token forest from those of the model's own forward; what rounding explains."""

    difference: float
    tolerance: float


class Diagnostics(Part):
    preference: Preference | None
    oracle: Oracle | None
    self_check: SelfCheck | None = None


class Throughput(Part):
    training_tokens_per_s: float | None
    pairs_per_s: float | None
    scoring_users_per_s: float | None
    peak_memory_bytes: int
    impl: str
    attention: str
    device: str
    threads: int
    seconds: dict[str, float]


class Content(Part):
    created: str
    key: str
    row: Hash
    dataset: str
    method: str
    family: Literal["popularity", "recommender", "language_model", "preference"]
    seed: int
    profile: str
    settings: dict[str, Any]
    config: dict[str, Any]
    data: Data
    training: Training | None
    evaluations: dict[str, Evaluation] = Field(min_length=1)
    diagnostics: Diagnostics
    throughput: Throughput
    environment: dict[str, Any]
    stages: dict[str, str]


def check(record: Any, where: str, then: str) -> None:
    """UserError for a record that lacks a field which reports read, or in which one has a wrong type, is not finite, or
    is a whole number of more than 64 bits: ``where``, the field, what is wrong, and ``then``."""
    for name in _not_finite(record):
        raise UserError(f"{where}: {name} is not a finite number of 64 bits; {then}")
    try:
        Content.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        given = "" if first["type"] == "missing" else f" = {str(first['input'])[:60]!r}"
        field = ".".join(map(str, first["loc"]))
        raise UserError(f"{where}: {field}{given}: {first['msg']}; {then}") from None


def _not_finite(value: Any, name: str = "") -> Iterator[str]:
    if (isinstance(value, float) and not math.isfinite(value)) or (isinstance(value, int) and abs(value) >> 63):
        yield name
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from _not_finite(part, f"{name}.{key}" if name else str(key))


def digest_of(record: Mapping[str, Any]) -> str:
    """sha256 of a record's content, its own hash left out."""
    content = {name: value for name, value in record.items() if name != "sha256"}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables by dotted name: {"sft": {"lr": 1}} is {"sft.lr": 1}."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def all_settings(settings: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a row of the tables by dotted name: the method's own, and what else of the configuration can
    change its numbers. The data set's are left out: they decide which records can be compared (``data`` says so), and
    one row may stand in the tables of several data sets."""
    return {**flat({name: part for name, part in config.items() if name != "dataset"}), **flat(settings)}


def row_of(method: str, settings: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """Identifies a row of the tables: a method under its settings. Seed and data set are not part of it."""
    return digest(method, all_settings(settings, config))

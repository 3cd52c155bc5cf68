"""A cell is a data set, a method and a seed: the stages that it needs, and its key."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rosepo_bench.base import records
from rosepo_bench.base.config import PreferenceConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.seeds import digest
from rosepo_bench.data import candidates, population, sequences
from rosepo_bench.data.types import Dataset
from rosepo_bench.evaluation.protocols.base import Protocol
from rosepo_bench.pipeline import alignment
from rosepo_bench.pipeline.evaluating import Answered, ItemRanker, of_items, of_titles
from rosepo_bench.pipeline.finetuning import Finetuning
from rosepo_bench.pipeline.fitting import Fits
from rosepo_bench.pipeline.language import Language
from rosepo_bench.pipeline.pairing import Pairing
from rosepo_bench.pipeline.probe import Probe
from rosepo_bench.pipeline.ranking import TitleRanker
from rosepo_bench.pipeline.results import Trained
from rosepo_bench.pipeline.smoothing import Smoothed
from rosepo_bench.pipeline.stages import Stage
from rosepo_bench.pipeline.task import Task
from rosepo_bench.preference.oracles.cross_fit import check_folds
from rosepo_bench.preference.samplers.uniform import Uniform
from rosepo_bench.preference.smoothings.base import OracleSmoothing
from rosepo_bench.runs.composing import protocols, settings_of, training
from rosepo_bench.runs.methods import Method, PlainLM, Preference, Recommender


class Shared:
    """What the methods of one task share: protocols, language model, SFT, fitted oracles."""

    def __init__(self, task: Task) -> None:
        self.task, self.fits, self.language = task, Fits(task), Language(task)
        self.protocols = protocols(task.config)
        self.rule = self.protocols[0].rule
        self.finetuning = Finetuning(self.language, self.rule)

    @cached_property
    def population(self) -> dict[str, Any]:
        """Facts of the published data without which no number should be quoted."""
        return population.facts(self.task.clean, self.task.split, self.task.dataset_config.candidates)


@dataclass(frozen=True)
class Cell:
    """One cell. Everything in its record comes from stages. ``broken``: why its method cannot be used; the cell then
    fails, and no other."""

    shared: Shared
    method: Method
    broken: str = ""

    @property
    def task(self) -> Task:
        return self.shared.task

    @property
    def language(self) -> Language:
        return self.shared.language

    @property
    def sft(self) -> Stage[Trained]:
        return self.shared.finetuning.sft

    @property
    def name(self) -> str:
        return f"{self.task.name}/{self.method.name}/seed{self.task.seed}"

    @property
    def reads_titles(self) -> bool:
        """Whether it has a language model."""
        return isinstance(self.method, PlainLM | Preference)

    # --- preference methods -----------------------------------------------------------------------------------------

    @cached_property
    def training(self) -> PreferenceConfig:
        """The settings of its preference training."""
        assert isinstance(self.method, Preference)
        return training(self.method, self.task.config)

    @cached_property
    def rounds(self) -> tuple[tuple[Smoothed, Stage[Trained]], ...]:
        """For each round its pairs with their ε, and the model that is trained on them. The model of a round is the
        reference of the next one, and the one that is mined."""
        method, made, base = self.method, [], self.sft
        assert isinstance(method, Preference)
        for number in range(1, method.rounds + 1):
            parts = (self.language, method.sampler, self.training, base)
            pairing = Pairing(*parts, k=method.rejected, rule=self.shared.rule, round=number)
            smoothed = Smoothed(self.shared.fits, pairing, method.smoothing)
            base = alignment.aligned(smoothed, method.loss, method.name, number)
            made.append((smoothed, base))
        return tuple(made)

    @property
    def smoothed(self) -> Smoothed:
        """The pairs of the first round with their ε."""
        return self.rounds[0][0]

    @property
    def pairing(self) -> Pairing:
        return self.smoothed.pairing

    @cached_property
    def probe(self) -> Probe | None:
        """The oracle's quality; None for methods without an oracle."""
        judging = self.smoothed.judging if isinstance(self.method, Preference) else None
        return Probe(judging) if judging else None

    @cached_property
    def reference(self) -> Stage[Any]:
        """Log-probs of the first round's pairs before preference training."""
        assert isinstance(self.method, Preference)
        return alignment.reference(self.pairing, self.method.loss)

    @cached_property
    def after(self) -> Stage[Any]:
        """Log-probs of the first round's validation pairs after all of it."""
        assert self.trained is not None
        return self.pairing.pair_logps(self.method.name, self.trained, ("validation",))

    # --- all methods ------------------------------------------------------------------------------------------------

    @cached_property
    def trained(self) -> Stage[Trained] | None:
        """The language model that is evaluated; None: the untrained one, or no language model."""
        if isinstance(self.method, Preference):
            return self.rounds[-1][1]
        if isinstance(self.method, PlainLM):
            return {"none": None, "once": self.sft, "longer": self._longer}[self.method.sft]
        return None

    @cached_property
    def _longer(self) -> Stage[Trained]:
        pairing = Pairing(self.language, Uniform(), self.task.config.preference, self.sft)
        return self.shared.finetuning.longer(alignment.budget(pairing))

    @cached_property
    def answered(self) -> dict[str, Stage[Answered]]:
        """Its answers to each protocol that it can be asked by."""
        return {protocol.name: self._answered(protocol) for protocol in self.protocols}

    @cached_property
    def protocols(self) -> list[Protocol]:
        """The run's protocols but those that need what the method cannot give. UserError: none is left."""
        serves = (ItemRanker if isinstance(self.method, Recommender) else TitleRanker).serves
        found = [protocol for protocol in self.shared.protocols if protocol.needs <= serves]
        if not found:
            needs = {one.name: ", ".join(sorted(one.needs - serves)) for one in self.shared.protocols}
            lacking = "; ".join(f"{name} needs {need}" for name, need in needs.items())
            raise UserError(
                f"method {self.method.name}: none of the protocols can ask it ({lacking}); leave the method out, "
                "or add a protocol"
            )
        return found

    def _answered(self, protocol: Protocol) -> Stage[Answered]:
        if isinstance(self.method, Recommender):
            return of_items(self.shared.fits, self.method.name, self.method.model, protocol)
        return of_titles(self.language, self.method.name, self.trained, protocol)

    @cached_property
    def sft_answered(self) -> Stage[Answered]:
        """The SFT model's answers to the first protocol, with which preference methods are compared."""
        return of_titles(self.language, "sft", self.sft, self.protocols[0])

    @cached_property
    def stages(self) -> tuple[Stage[Any], ...]:
        """The stages needed for the record; the key depends on them."""
        found: tuple[Stage[Any], ...] = (self.task.examples_stage("test"), *self.answered.values())
        if isinstance(self.method, Preference):
            found += (self.sft_answered, self.reference, self.after, self.smoothed.stage)
            if self.probe:
                assert self.smoothed.judging
                found += (self.smoothed.judging.stage, self.probe.stage)
        return found

    @cached_property
    def key(self) -> str:
        """Hash of all that can change the record."""
        named = [self.task.name, self.method.name, self.task.seed, self.task.config.profile]
        if self.broken:
            return digest(records.SCHEMA, named, self.broken)
        return digest(records.SCHEMA, named, settings_of(self.method), [stage.key for stage in self.stages])

    def check(self) -> None:
        """Refuses what can be known before any work. UserError."""
        if self.broken:
            return
        _ = self.key
        if self.reads_titles:
            self.language.check_model()

    def check_data(self) -> None:
        """Refuses what the data alone can tell, before any training. UserError: lists that cannot be drawn, and what
        :meth:`check_users` refuses."""
        self.check_users(self.task.data)
        _ = self.task.test

    def check_users(self, dataset: Dataset) -> None:
        """UserError: too few items for most users' candidate lists, too few test users for an interval, or an oracle
        that cannot be cross-fitted to so few users."""
        config = self.task.dataset_config
        targets = sequences.split(dataset, config.split).test
        candidates.check_lists(dataset, targets, config.candidates)
        able = int(candidates.with_list(dataset, targets, config.candidates).sum())
        users = min(config.users or able, able)
        if users < 2:
            raise UserError(f"{self.task.name}: {users} test user: an interval needs at least two; evaluate more users")
        smoothing = self.method.smoothing if isinstance(self.method, Preference) else None
        if isinstance(smoothing, OracleSmoothing):
            check_folds(dataset.users, smoothing.folds)

    @property
    def folder(self) -> Path:
        """The folder of its record, whether it exists or not."""
        task = self.task
        return records.record_folder(task.stages.out, task.name, self.method.name, task.seed, self.key)


def refuse_broken(cell: Cell) -> None:
    """UserError for a method whose package cannot be used."""
    if cell.broken:
        raise UserError(f"method {cell.method.name!r}: {cell.broken}")

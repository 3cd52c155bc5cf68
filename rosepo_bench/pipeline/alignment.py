"""Preference training as a stage: from a model's weights, a sampler's pairs and their ε to a method's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rosepo_bench.base import store
from rosepo_bench.base.component import flat
from rosepo_bench.base.seeds import derive
from rosepo_bench.base.work import Work
from rosepo_bench.engine.model.limits import limits_of
from rosepo_bench.engine.prompts.examples import grouped
from rosepo_bench.engine.training.memory import PeakMemory
from rosepo_bench.engine.training.meter import Meter
from rosepo_bench.engine.training.preference import planned_batches, train_preference
from rosepo_bench.engine.training.steps import TrainingPairs
from rosepo_bench.losses.base import Loss
from rosepo_bench.pipeline.finetuning import Budget
from rosepo_bench.pipeline.pairing import Logps, Pairing
from rosepo_bench.pipeline.results import Trained, read_trained
from rosepo_bench.pipeline.smoothing import Smoothed
from rosepo_bench.pipeline.stages import Stage
from rosepo_bench.pipeline.watching import watched, watched_inputs, watched_parents, watching_code


def needs_reference(loss: Loss) -> bool:
    return "reference" in loss.needs


def reads_partners(loss: Loss) -> bool:
    return "mismatched" in loss.of_whole_step


def reference(pairing: Pairing, loss: Loss) -> Stage[Logps]:
    """The log-probs under the reference model: margins are told against it, whether the loss needs it or not."""
    return pairing.reference(partners=reads_partners(loss))


def aligned(smoothed: Smoothed, loss: Loss, name: str, round: int = 1) -> Stage[Trained]:
    """Preference training with ``loss`` on top of the pairs' base model."""
    pairing = smoothed.pairing
    task, language, settings, get = pairing.task, pairing.language, pairing.settings, pairing.stages.get
    told = reference(pairing, loss)

    def compute(folder: Path, work: Path) -> None:
        model, meter = language.create(get(pairing.base).weights), Meter()
        label = f"{task.name} {name}" + (f" round {round}" if round > 1 else "")
        pairs = _pairs(smoothed, loss, get(told))
        with PeakMemory(model.device) as memory:
            report = train_preference(
                model,
                language.prompter,
                task.data.sequences,
                pairs,
                settings,
                loss,
                meter=meter,
                batch_tokens=task.config.batch_tokens,
                work=Work(
                    derive(pairing.seed, "preference", *([round] if round > 1 else [])),
                    label,
                    work,
                    task.config.checkpoint_seconds,
                    f"method.{name}.training",
                ),
                validation=watched(language, model, settings, pairing.rule, label),
            )
        model.save(folder / "weights.safetensors")
        facts = {"pairs_seen": meter.pairs_seen, "loss": loss.label(), "kernel": loss.kernel or "plain torch"}
        store.write_json(folder / "report.json", {**meter.report(report, memory), **facts})

    inputs = {
        "preference": settings.model_dump(),
        "loss": dict(flat(loss)),
        "name": loss.name,
        "round": round,
        "batch_tokens": task.config.batch_tokens,
        **watched_inputs(task, settings, pairing.rule),
    }
    parents: tuple[Stage[Any], ...] = (pairing.base, told, smoothed.stage, *watched_parents(task, settings))
    code = (loss, *(watching_code(task) if settings.evaluations else ()))
    suffix = f".round{round}" if round > 1 else ""
    return Stage(f"{task.name}.{name}{suffix}", inputs, parents, compute, read_trained, code)


def _pairs(smoothed: Smoothed, loss: Loss, told: Logps) -> TrainingPairs:
    pairing = smoothed.pairing
    partners = reads_partners(loss)
    return TrainingPairs(
        pairing.prompts("train"),
        pairing.titles("train"),
        told["train"] if needs_reference(loss) else None,
        smoothed.epsilon("train"),
        partner=pairing.partner("train") if partners else None,
        partner_reference=told["partner"][:, 0] if partners else None,
    )


def budget(pairing: Pairing) -> Stage[Budget]:
    """The optimizer steps and tokens that preference training on these pairs takes."""
    task, language, settings = pairing.task, pairing.language, pairing.settings

    def compute(folder: Path, work: Path) -> None:
        model = language.create()
        limits, alone = limits_of(model, task.config.batch_tokens), settings.trees == "prompt"
        prompts, titles = pairing.prompts("train"), pairing.titles("train")
        users = grouped(
            language.prompter, task.data.sequences, prompts, titles, limits=limits, compared=True, alone=alone
        )
        plan = planned_batches(users, settings, seed=derive(pairing.seed, "preference"))
        tokens = sum(len(group.tree) for step in plan for user in step for group in users[user])
        store.write_json(folder / "budget.json", {"steps": len(plan), "tokens": tokens})

    inputs = {"preference": settings.model_dump(), "batch_tokens": task.config.batch_tokens, **language.inputs}
    return Stage(
        f"{task.name}.budget",
        inputs,
        (pairing.rejected, *language.parents),
        compute,
        lambda folder: Budget(**store.read_json(folder / "budget.json")),
    )

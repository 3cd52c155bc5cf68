"""Preference training as a stage: from SFT weights, a sampler's pairs and their ε to a method's weights."""

from __future__ import annotations

from pathlib import Path

from rosepo_bench.base import store
from rosepo_bench.base.seeds import derive
from rosepo_bench.base.work import Work
from rosepo_bench.engine.training.memory import PeakMemory
from rosepo_bench.engine.training.meter import Meter
from rosepo_bench.engine.training.preference import TrainingPairs, train_preference
from rosepo_bench.pipeline.smoothing import Smoothing
from rosepo_bench.pipeline.stages import Stage
from rosepo_bench.pipeline.task import Trained, read_trained


def aligned(smoothing: Smoothing, name: str, epsilon: str) -> Stage[Trained]:
    """Preference training on top of SFT with ε ``zero``, ``constant`` or from the ``oracle``."""
    pairing = smoothing.pairing
    language, pipeline, get = pairing.language, pairing.pipeline, pairing.stages.get
    config, settings = pipeline.config, pairing.settings

    def compute(folder: Path, work: Path) -> None:
        model = language.create(get(language.sft).weights)
        reference, meter = get(pairing.reference)["train"], Meter()
        pairs = TrainingPairs(
            pairing.prompts("train"), pairing.titles("train"), reference, smoothing.epsilon("train", epsilon)
        )
        with PeakMemory(model.device) as memory:
            report = train_preference(
                model,
                language.prompter,
                pipeline.data.sequences,
                pairs,
                settings,
                meter=meter,
                batch_tokens=config.batch_tokens,
                work=Work(
                    derive(pairing.seed, "preference"), f"{pipeline.name} {name}", work, config.checkpoint_seconds
                ),
            )
        model.save(folder / "weights.safetensors")
        seen = len(pairs.epsilon) * settings.epochs
        store.write_json(folder / "report.json", {**meter.report(report, memory), "pairs_seen": seen})

    inputs = {
        "preference": settings.model_dump(),
        "epsilon": epsilon,
        "batch_tokens": config.batch_tokens,
    }
    parents = (language.sft, pairing.reference, *((smoothing.judged,) if epsilon == "oracle" else ()))
    return Stage(f"{pipeline.name}.{name}", inputs, parents, compute, read_trained)

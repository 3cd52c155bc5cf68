"""One optimizer step of the pipeline against plain torch: transformers' forward over separate rows, the loss by its
formula, AdamW by torch. No forest, no operator of ours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import planted
import pytest
import torch
from planted import get
from safetensors.torch import load_file
from torch import Tensor, nn

from rosepo_bench.engine.training import loop
from rosepo_bench.pipeline import finetuning
from rosepo_bench.pipeline.results import Trained
from rosepo_bench.pipeline.stages import Stage
from rosepo_bench.runs.cells import Cell

Tensors = dict[str, Tensor]
ONE_STEP = ("preference.batch=1000", "sft.batch=1000")


def trained(cell: Cell, stage: Stage[Trained], monkeypatch: pytest.MonkeyPatch) -> tuple[Tensors, Tensors, float]:
    """Gradients, weights after the step, and the reported loss of a training of one step."""
    clip, found = torch.nn.utils.clip_grad_norm_, []

    def watched(parameters: object, *arguments: object) -> Tensor:
        given = list(parameters)  # type: ignore[call-overload]
        found.append([p.grad.clone() for p in given])
        return clip(given, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(loop.torch.nn.utils, "clip_grad_norm_", watched)
        result = get(cell, stage)
    assert result.report["steps"] == len(found) == 1
    weights = load_file(result.weights)
    names = [name for name, _ in planted.network(cell, None).named_parameters()]
    return dict(zip(names, found[0], strict=True)), weights, result.report["first_loss"]


def compare(network: nn.Module, loss: Tensor, lr: float, found: tuple[Tensors, Tensors, float]) -> None:
    """``loss`` of ``network``, its gradient and the weights after a step of AdamW against what was found. A step of
    Adam is lr·g/(|g| + 1e-8), whose sign is noise where g is: elements below a millionth of the largest are left to
    the comparison of gradients."""
    gradients, weights, reported = found
    assert reported == pytest.approx(float(loss.detach()), rel=1e-5)
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=0.0)
    loss.backward()
    assert gradients.keys() == {name for name, _ in network.named_parameters()}
    norm = float(torch.cat([p.grad.ravel() for p in network.parameters()]).norm())
    difference = torch.cat([(p.grad - gradients[name]).ravel() for name, p in network.named_parameters()])
    assert norm > 1e-3
    assert float(difference.norm()) < 1e-5 * norm
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    kept = {name: p.grad.abs() > 1e-6 * norm for name, p in network.named_parameters()}
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    optimizer.step()
    moved = 0
    for name, p in network.named_parameters():
        one, two, old = (values[kept[name]] for values in (p.detach(), weights[name], before[name]))
        scale = float(p.detach().abs().max())
        assert float((one - two).abs().max()) < 1e-5 * scale, name
        moved += int(((one - old).abs() > 0.5 * lr).sum())
    assert moved > 1000


@pytest.mark.parametrize(
    ("method", "listed"), [("dpo", False), ("rosepo", False), ("rosepo", True), ("rosepo-robust", False)]
)
def test_preference_training(method: str, listed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SFT's weights, the stored reference, each pair with its own ε: −(1−ε) log σ(βΔ) − ε log σ(−βΔ), the mean; the
    robust form turns the second sign and divides by 1 − 2ε."""
    world, beta, lr = planted.world(), 0.7, 1e-3
    settings = (
        *ONE_STEP,
        f"method.*.loss.beta={beta}",
        f"preference.lr={lr}",
        f"prompt.candidates={str(listed).lower()}",
    )
    cell = planted.cell(tmp_path / "out", world.write(tmp_path), *settings, "preference.pairs=30", method=method)
    stage = cell.trained
    assert stage is not None
    get(cell, cell.sft)
    get(cell, cell.smoothed.stage)
    found = trained(cell, stage, monkeypatch)
    examples, titles = cell.pairing.prompts("train"), cell.pairing.titles("train")
    epsilon = cell.smoothed.epsilon("train")[:, 0]
    assert (np.ptp(epsilon) > 0.1) == (method != "dpo")
    network = planted.network(cell, cell.sft)
    prompts = planted.prompts_of(cell, world, examples, listed=listed)
    losses = []
    for given, row, eps in zip(prompts, titles.tolist(), epsilon.tolist(), strict=True):
        chosen, rejected = (planted.logp(network, given, planted.response(cell, world, item)) for item in row)
        margin = beta * ((chosen - chosen.detach()) - (rejected - rejected.detach()))  # the reference is SFT itself
        log_sigmoid = nn.functional.logsigmoid
        if method == "rosepo-robust":
            loss = (-(1 - eps) * log_sigmoid(margin) + eps * log_sigmoid(-margin)) / (1 - 2 * eps)
        else:
            loss = -(1 - eps) * log_sigmoid(margin) - eps * log_sigmoid(-margin)
        losses.append(loss)
    assert len(losses) == 30
    compare(network, torch.stack(losses).mean(), lr, found)


def test_sft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cross-entropy of the titles of every step, the mean over their tokens, from the model as it is made."""
    world, windows = planted.world(), []
    trees = finetuning.window_trees
    monkeypatch.setattr(
        finetuning,
        "window_trees",
        lambda p, s, given, **options: (windows.extend(given), trees(p, s, given, **options))[1],
    )
    cell = planted.cell(tmp_path / "out", world.write(tmp_path), *ONE_STEP, "sft.lr=1e-3")
    found = trained(cell, cell.sft, monkeypatch)
    network, total, tokens = planted.network(cell, None), torch.zeros(()), 0
    for window in windows:
        own = world.histories[window.user][window.start : window.stop]
        for step, item in enumerate(own):
            said = planted.response(cell, world, item)
            total = total - planted.logp(network, planted.prompt(cell, world, own[:step]), said)
            tokens += len(said)
    compare(network, total / tokens, 1e-3, found)

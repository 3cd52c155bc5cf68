"""Every attention sees what the dense masks show; FlexAttention is compiled a few times, not once a batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.attention.flex_attention as flex
from equality import CASES, case_name, random_group, values_and_gradients, worst
from small_models import CONTEXT, VOCABULARY, language_model, network
from torch import Tensor
from torch._dynamo.utils import counters

from rosepo_bench.base.config import ModelConfig
from rosepo_bench.base.errors import UserError
from rosepo_bench.engine.forest import Batch, Tree, build, collate
from rosepo_bench.engine.model import attention
from rosepo_bench.engine.model.forest_model import ForestModel
from rosepo_bench.engine.model.language_model import context_of
from rosepo_bench.engine.ops.attention_reference import tree_masks

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def long_tree(draw: np.random.Generator, tokens: int) -> Tree:
    """Branches of up to 200 tokens that leave one path anywhere; about ``tokens`` nodes."""
    path, group, size = draw.integers(1, VOCABULARY, size=400), [], 0
    while size < tokens:
        start, length = int(draw.integers(1, 400)), int(draw.integers(2, 200))
        group.append((path[:start], draw.integers(1, VOCABULARY, size=length)))
        size += length
    return build(group, context=1000)


def batch_of(draw: np.random.Generator, tokens: int, trees: int) -> Batch:
    return collate([long_tree(draw, tokens) for _ in range(trees)])


def forests(draw: np.random.Generator) -> Batch:
    return collate([build(random_group(draw), context=CONTEXT) for _ in range(5)])


def listed(counts: Tensor, indices: Tensor) -> Tensor:
    """bool ``[rows, columns]`` of what a BlockMask lists: each row's first ``counts`` ``indices``."""
    blocks = torch.zeros(indices.shape[2:], dtype=torch.bool)
    for row, (count, columns) in enumerate(zip(counts[0, 0], indices[0, 0], strict=True)):
        blocks[row, columns[:count].long()] = True
    return blocks


@pytest.mark.parametrize("window", [0, 1, 7, 150, 5000])
def test_blocks_are_those_of_the_dense_mask(window: int) -> None:
    """No block is left out or called full that is not; without a window none is kept or called partial needlessly."""
    draw = np.random.default_rng(window)
    for tokens, trees in ((300, 1), (500, 3), (90, 5)):
        batch = batch_of(draw, tokens, trees)
        masks = tree_masks(batch.end, batch.depth, window)
        size, truth = len(batch), torch.block_diag(*(one.int() for one in masks)).bool()
        mask = attention.block_mask(*attention.padded(batch), window)
        length = attention.bucket(size)
        index = torch.arange(length)
        seen = mask.mask_mod(torch.tensor(0), torch.tensor(0), index[:, None], index[None, :])
        assert torch.equal(seen[:size, :size], truth)
        assert not seen[size:, :size].any()
        blocks = seen.view(length // 128, 128, length // 128, 128).transpose(1, 2).flatten(2)
        partial = listed(mask.kv_num_blocks, mask.kv_indices)
        full = listed(mask.full_kv_num_blocks, mask.full_kv_indices)
        assert not (partial & full).any()
        assert ((partial | full) >= blocks.any(-1)).all()
        assert (full <= blocks.all(-1)).all()
        if not window:
            assert torch.equal(partial | full, blocks.any(-1))
            assert torch.equal(full, blocks.all(-1))
        # The backward pass goes by the same blocks, transposed.
        assert torch.equal(listed(mask.q_num_blocks, mask.q_indices), partial.T)
        assert torch.equal(listed(mask.full_q_num_blocks, mask.full_q_indices), full.T)


def test_a_window_counts_up_the_path() -> None:
    """Nodes of other branches that lie between two nodes in a row take no room in a window."""
    trunk, branches = np.array([1, 2, 3]), [np.array([4 + b, 9, 10, 11]) for b in range(3)]
    batch = collate([build([(trunk, branch) for branch in branches], context=9)])
    (mask,) = tree_masks(batch.end, batch.depth, 3)
    assert mask.sum(1).tolist() == [1, 2, *[3] * 10]
    last = batch.tokens.tolist().index(6) + 2  # the third branch: 6, 9, 10
    assert batch.tokens[mask[last]].tolist() == [6, 9, 10]


@pytest.fixture
def unfused(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention as plain torch operations, which have a gradient on the CPU, too."""
    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(flex, "_validate_device", lambda *_: None)
    monkeypatch.setattr(attention, "_compiled", lambda: attention._call)
    monkeypatch.setattr(attention, "FLEX_FROM", 128)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_the_operator_equals_dense(case: tuple[str, dict[str, object]]) -> None:
    """Every architecture, log-probs and all gradients, fp64."""
    model, draw = network(case[0], torch.float64, **case[1]), np.random.default_rng(1)
    batch = forests(draw)
    weights = torch.from_numpy(draw.normal(size=batch.sequences))
    dense = values_and_gradients(model, language_model(model, "dense").logps(batch), weights)
    if case[0] == "gemma2":
        with pytest.raises(UserError, match=r"soft_cap is 1\.5, which is not compiled"):
            language_model(model, "forest").logps(batch)
        forest = values_and_gradients(model, language_model(model, "auto").logps(batch), weights)
    else:
        forest = values_and_gradients(model, language_model(model, "forest").logps(batch), weights)
    assert max(worst(forest, dense).values()) < 1e-10


@pytest.mark.usefixtures("unfused")
@pytest.mark.parametrize("case", [*CASES, ("deepseek_v3", {})], ids=case_name)
def test_flex_equals_dense(case: tuple[str, dict[str, object]]) -> None:
    """Every architecture, log-probs and all gradients, fp64."""
    model, draw = network(case[0], torch.float64, **case[1]), np.random.default_rng(1)
    batch = forests(draw)
    weights = torch.from_numpy(draw.normal(size=batch.sequences))
    dense = values_and_gradients(model, language_model(model, "dense").logps(batch), weights)
    with torch.no_grad():  # as inputs() refuses a gradient on the CPU
        inputs = attention.inputs(batch, model.config, "flex")
    rows = model.base_model(**inputs, use_cache=False).last_hidden_state[0, batch.rows]
    logps = language_model(model).head(rows, batch.target, batch.row_of_target, batch.sequence, batch.sequences)
    assert max(worst(values_and_gradients(model, logps, weights), dense).values()) < 1e-10


@pytest.mark.slow
def test_compiled_flex_equals_dense() -> None:
    """The CPU's own kernel, fp32: no further from fp64 than twice the dense mask's error and 4 ulp."""
    batch = forests(np.random.default_rng(2))
    double = network("gemma2", torch.float64, sliding_window=100, head_dim=16)
    with torch.no_grad():
        exact = language_model(double, "dense").logps(batch)
        single = double.float()
        dense, blocks = (language_model(single, choice).logps(batch).double() for choice in ("dense", "flex"))
    ulp = np.finfo(np.float32).eps * float(exact.abs().max())
    assert not torch.equal(dense, blocks)
    assert (blocks - exact).abs().max() <= 2 * (dense - exact).abs().max() + 4 * ulp


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamo decides what to compile as ever; a backend that makes nothing of it and small buckets save the time."""
    torch._dynamo.reset()
    counters.clear()
    kernel = attention._compiled("eager")
    monkeypatch.setattr(attention, "_compiled", lambda: kernel)
    monkeypatch.setattr(attention, "FLEX_FROM", 128)


@pytest.mark.usefixtures("counted")
@pytest.mark.parametrize(("kind", "kernels"), [("llama", 1), ("gemma2", 2)])
def test_batches_of_a_bucket_share_a_kernel(kind: str, kernels: int) -> None:
    """Lengths and masks change from batch to batch; compiled is one kernel a bucket, and one with a window."""
    draw, model = np.random.default_rng(4), network(kind, torch.float32)
    flexible, dense = (language_model(model, choice) for choice in ("flex", "dense"))
    flexible.check()  # compiles kernels of its own
    torch._dynamo.reset()
    counters.clear()
    lengths, buckets = set(), set()
    with torch.no_grad():
        for _ in range(40):
            trees = [build(random_group(draw), context=CONTEXT) for _ in range(int(2 ** draw.uniform(0, 5.5)))]
            batch = collate(trees)
            lengths.add(len(batch))
            buckets.add(attention.bucket(len(batch)))
            torch.testing.assert_close(flexible.logps(batch), dense.logps(batch), rtol=1e-4, atol=1e-4)
    assert len(lengths) > 25
    assert buckets == {128, 256, 512, 1024}
    assert counters["stats"]["unique_graphs"] == kernels * len(buckets)


@pytest.mark.usefixtures("counted")
def test_too_many_kernels_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    draw, model = np.random.default_rng(5), language_model(network("llama", torch.float32), "flex")
    model.check()
    torch._dynamo.reset()
    monkeypatch.setattr(attention, "COMPILED_KERNELS", 1)
    few, many = (collate([build(random_group(draw), context=CONTEXT) for _ in range(n)]) for n in (2, 30))
    with torch.no_grad():
        model.logps(few)
        with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit):
            model.logps(many)


LLAMA = {"hidden_size": 64}


@pytest.mark.parametrize(
    ("setting", "impl", "device", "tokens", "changes", "choice"),
    [
        ("auto", "auto", CPU, 9000, {}, "forest"),
        ("auto", "cpp", CPU, 9, {}, "forest"),
        ("auto", "reference", CPU, 9000, {}, "dense"),
        ("auto", "auto", CPU, 9000, {"attention_dropout": 0.1}, "dense"),
        ("auto", "auto", CPU, 9000, {"attn_logit_softcapping": 20.0}, "forest"),  # which a Llama does not read
        ("auto", "auto", CPU, 9000, {"model_type": "gemma2", "attn_logit_softcapping": 20.0}, "dense"),
        ("dense", "auto", CPU, 9000, {}, "dense"),
        ("auto", "auto", CUDA, 1023, {}, "dense"),
        ("auto", "auto", CUDA, 1024, {}, "flex"),
        ("auto", "reference", CUDA, 1024, {}, "flex"),
        ("auto", "auto", CUDA, 1024, {"attention_dropout": 0.1}, "dense"),
        ("auto", "auto", CUDA, 1024, {"num_attention_heads": 8}, "dense"),
        ("dense", "auto", CUDA, 9000, {}, "dense"),
        ("flex", "auto", CUDA, 10, {}, "flex"),
    ],
)
def test_choice(
    setting: str, impl: str, device: torch.device, tokens: int, changes: dict[str, object], choice: str
) -> None:
    config = network("llama", torch.float32, **LLAMA).config
    for name, value in changes.items():
        setattr(config, name, value)
    if "num_attention_heads" in changes:
        config.head_dim = None
    assert attention.choose(setting, impl, device, tokens, config) == choice


@pytest.mark.parametrize(
    ("setting", "kind", "changes", "message"),
    [
        ("flex", "gpt2", {"n_embd": 64, "attn_pdrop": 0.1}, r"drops attention weights \(probability 0\.1\); set model"),
        ("flex", "llama", {"hidden_size": 64, "attention_dropout": 0.2}, r"probability 0\.2"),
        ("flex", "gemma2", {"head_dim": 8}, r"heads are narrower than 16 \(8\)"),
        ("flex", "gpt_neox", {}, r"heads are narrower than 16 \(8\)"),
        ("forest", "llama", {"attention_dropout": 0.2}, r"'forest' cannot train .* \(probability 0\.2\); set"),
        ("forest", "gemma2", {}, r"it caps attention scores \(at 1\.5\); set model\.attention = 'dense'"),
    ],
)
def test_models_that_a_setting_cannot_train(setting: str, kind: str, changes: dict[str, object], message: str) -> None:
    config = network(kind, torch.float32, **changes).config
    device = CUDA if setting == "flex" else CPU
    with pytest.raises(UserError, match=message):
        attention.refuse_impossible(setting, "auto", device, config)
    attention.refuse_impossible("auto", "auto", device, config)
    attention.refuse_impossible("dense", "auto", device, config)
    attention.refuse_impossible("flex", "auto", CUDA, network("gemma2", torch.float32, head_dim=16).config)


def test_the_operator_is_for_the_cpu_and_no_reference() -> None:
    with pytest.raises(UserError, match="compiled for the CPU, the model is on cuda; set"):
        attention.refuse_impossible("forest", "auto", CUDA)
    with pytest.raises(UserError, match=r"compiled for the CPU, model\.impl = 'reference'; set"):
        context_of(ModelConfig(attention="forest", device="cpu", impl="reference"))
    attention.refuse_impossible("forest", "cpp", CPU)


def test_flex_has_no_gradient_on_the_cpu() -> None:
    batch = forests(np.random.default_rng(0))
    with pytest.raises(UserError, match="trains on a GPU only"):
        context_of(ModelConfig(attention="flex", device="cpu"))
    with pytest.raises(UserError, match="no gradient on the CPU"):
        language_model(network("llama", torch.float32), "flex").logps(batch)


@pytest.mark.usefixtures("counted")
def test_dropout_is_never_left_out() -> None:
    model = network("llama", torch.float32, attention_dropout=0.3)
    batch = forests(np.random.default_rng(0))
    with torch.no_grad():
        for setting in ("flex", "forest"):
            language_model(model.eval(), setting).logps(batch)
            with pytest.raises(UserError, match=f"'{setting}' cannot drop attention weights"):
                language_model(model.train(), setting).logps(batch)
        for setting in ("auto", "dense"):
            given = language_model(model.train(), setting)
            assert not torch.equal(given.logps(batch), given.logps(batch))


def test_unknown_choices_are_refused() -> None:
    with pytest.raises(UserError, match="attention is 'flexx': did you mean 'flex'"):
        language_model(network("llama", torch.float32), "flexx")
    with pytest.raises(ValueError, match="at least 16 per head"):
        ModelConfig(attention="flex", hidden=32, heads=4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_flex_trains_on_a_gpu(kind: str) -> None:
    """Log-probs and gradients, fp32, against the dense mask in fp64 on the CPU."""
    draw, double = np.random.default_rng(6), network(kind, torch.float64, head_dim=16, max_position_embeddings=1000)
    batch = batch_of(draw, 1500, 2)
    weights = torch.from_numpy(draw.normal(size=batch.sequences))
    exact = values_and_gradients(double, language_model(double, "dense").logps(batch), weights)
    single = double.float().to(CUDA)
    on_gpu = Batch(**{k: v.to(CUDA) if isinstance(v, Tensor) else v for k, v in vars(batch).items()})
    errors = []
    for choice in ("dense", "flex"):
        model = ForestModel(single, attention=choice)
        found = values_and_gradients(single, model.logps(on_gpu), weights.to(CUDA))
        errors.append(worst({name: value.cpu() for name, value in found.items()}, exact))
    for name, tensor in exact.items():
        ulp = np.finfo(np.float32).eps * float(tensor.abs().max())
        assert errors[1][name] <= 2 * errors[0][name] + 16 * ulp, name

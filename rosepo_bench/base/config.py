"""The configuration: a frozen, strict schema. Errors name the key that is unknown, of a wrong type or out of range."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rosepo_bench.base import rates
from rosepo_bench.base.plain import check_name

Tables = dict[str, dict[str, Any]]
AtomicColumn = Literal["user_id", "item_id", "timestamp", "title", "year", "author", "genre"]
MOST = 10**9
COMPONENTS = ("losses", "samplers", "smoothings", "oracles")


class Section(BaseModel):
    """Frozen; refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DatasetConfig(Section):
    """One data set: its files, how they are filtered and split, and the users that are evaluated."""

    source: str = Field(description="a name of `ls datasets`, or `atomic` for RecBole .inter/.item files at `path`")
    path: str = Field(
        "",
        description="folder (atomic: path prefix) of the raw files, in a profile relative to its folder, with --set to "
        "the working directory; empty: DATA_DIR/source, then fetched",
    )
    columns: dict[AtomicColumn, str | Annotated[list[str], Field(min_length=1)]] = Field(
        default_factory=dict,
        description="atomic only: how the files call user_id, item_id, timestamp, title, year, author and genre, e.g. "
        'title = "app_name"; of a list, the first that a file has is read',
    )
    time_unit: Literal["seconds", "milliseconds", "order"] = Field(
        "seconds", description="atomic only: unit of the timestamps; order: they only tell which event came first"
    )
    core: int = Field(1, ge=1, le=1000, description="k of the k-core on users and items; 1: no filter")
    split: Literal["leave_one_out", "temporal"] = Field(
        "leave_one_out", description="hold out each user's last items, or everything after one date for all users"
    )
    ties: Literal["file", "shuffled", "item"] = Field(
        "file", description="how a user's events of one time are ordered: as in the file, by a draw, or by item id"
    )
    users: int = Field(0, ge=0, le=MOST, description="evaluate a frozen subset of this many test users; 0: all")
    synthetic: Literal["auto", "never", "always"] = Field(
        "auto", description="auto: use the replica if the files are absent (steam, goodreads)"
    )
    replica_users: int = Field(800, ge=50, le=1_000_000, description="users of the synthetic replica")
    seed: int = Field(
        0, ge=0, le=MOST, description="seed of candidates, user subset, shuffled ties and replica; not the run's seed"
    )
    candidates: int = Field(20, ge=2, le=MOST, description="length of each candidate list, including the target")
    noise: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="probability with which each training and validation interaction gets another item, drawn with the "
        "run's seed; test targets and candidates stay clean",
    )
    noise_law: Literal["uniform", "popularity"] = Field(
        "uniform", description="how that item is drawn: all alike, or in proportion to training interactions"
    )
    overrides: dict[str, Any] = Field(
        default_factory=dict, description='settings (dotted keys) for this data set, e.g. "sft.epochs" = 3'
    )

    @model_validator(mode="after")
    def _only_atomic(self) -> DatasetConfig:
        if self.source != "atomic" and (self.columns or self.time_unit != "seconds"):
            raise ValueError("columns and time_unit are settings of source `atomic` alone; remove them")
        return self


class ModelConfig(Section):
    """The language model: `tiny` (a Llama from scratch) or `hf:NAME_OR_PATH`."""

    name: str = Field("tiny", max_length=500, description="`tiny`, or hf:NAME_OR_PATH of a causal LM of transformers")
    hidden: int = Field(128, ge=8, le=65_536, description="tiny only: width")
    layers: int = Field(3, ge=1, le=1000, description="tiny only: number of blocks")
    heads: int = Field(4, ge=1, le=1000, description="tiny only: attention heads")
    vocabulary: int = Field(
        4000, ge=300, le=1_000_000, description="tiny only: size of the BPE trained on the training titles"
    )
    context: int = Field(1024, ge=16, le=1_000_000, description="tiny only: longest sequence, in tokens")
    training: Literal["full", "lora"] = Field(
        "full", description="train all weights, or LoRA layers on all linear ones"
    )
    lora_rank: int = Field(8, ge=1, le=10_000, description="lora only: rank")
    lora_alpha: int = Field(32, ge=1, le=1_000_000, description="lora only: scale, divided by the rank")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="lora only; masks are the same along a shared prefix")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="dtype of forward passes; bfloat16: by autocast, with trained weights, their gradients and AdamW's "
        "moments in float32 and frozen weights in bfloat16",
    )
    attention: Literal["auto", "forest", "dense", "flex"] = Field(
        "auto",
        description="forest: the compiled operator, CPU only; dense: masked SDPA tree by tree; flex: FlexAttention, "
        "CUDA only; auto: forest on the CPU, flex on CUDA for passes of 1,024 tokens or more, each if the model allows "
        "it (no attention dropout, no capped scores, heads of width 16 or more), otherwise dense",
    )
    checkpointing: bool = Field(
        False,
        description="recompute activations in the backward pass instead of storing them: less memory, more time",
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU if torch sees one")
    impl: Literal["auto", "cpp", "cuda", "reference"] = Field(
        "auto", description="implementation of head and loss: the device's compiled operators, or plain torch"
    )
    square_cost: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="a tree of T tokens costs T + square_cost·T²; users are cut into trees by this cost; "
        "0: computed from the model's shape",
    )

    @property
    def kind(self) -> str:
        """What its learning rates depend on."""
        return "tiny" if self.name == "tiny" else f"hf {self.training}"

    @model_validator(mode="after")
    def _shape(self) -> ModelConfig:
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden = {self.hidden} must be an even multiple of heads = {self.heads}")
        if self.name == "tiny" and self.attention == "flex" and self.hidden < 16 * self.heads:
            raise ValueError(
                f"attention = 'flex' needs hidden = {self.hidden} to be at least 16 per head (heads = {self.heads})"
            )
        return self


class PromptConfig(Section):
    """The prompt. Its template depends on the data set (engine/prompts)."""

    history: int = Field(19, ge=1, le=100_000, description="longest history in a prompt, in items")
    candidates: bool = Field(False, description="list the candidates in the prompt")
    anchor: int = Field(
        0,
        ge=0,
        le=100_000,
        description="the first item of a user's histories changes only every this many steps, counted back from the "
        "latest, so that prompts in between extend each other in one tree; 1: at every step, a sliding window; 0: half "
        "the history",
    )

    @model_validator(mode="after")
    def _anchored(self) -> PromptConfig:
        if self.anchor > self.history:
            raise ValueError(
                f"anchor = {self.anchor} exceeds history = {self.history}: some prompts would have no history; lower it"
            )
        return self


class TrainingConfig(Section):
    """Settings of every training: AdamW (arXiv 1711.05101) and its learning rate."""

    lr: float = Field(gt=0, description="peak learning rate of AdamW")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps in which the learning rate rises linearly")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine",
        description="the learning rate after warm-up: decays to 0 along half a cosine or a line, or stays constant",
    )
    weight_decay: float = Field(0.0, ge=0, le=1000, description="weight decay of AdamW")
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.999),
        strict=False,  # TOML and JSON have lists only; the two numbers stay strict
        description="decay rates of AdamW's two moments, as [0.9, 0.999]",
    )
    clip: float = Field(1.0, gt=0, description="gradients with a larger norm are scaled down to this norm")
    steps: int = Field(0, ge=0, le=MOST, description="optimizer steps; 0: as many as the epochs take")
    evaluations: int = Field(
        0,
        ge=0,
        le=MOST,
        description="times the validation metric is measured during training, and the best weights kept; 0: never, the "
        "last weights are kept",
    )
    patience: int = Field(
        0, ge=0, le=MOST, description="training stops after so many measurements in a row without improvement; 0: never"
    )

    @model_validator(mode="after")
    def _patient(self) -> TrainingConfig:
        if self.patience and not self.evaluations:
            raise ValueError(f"patience = {self.patience} has no effect with evaluations = 0; set evaluations")
        return self


class SFTConfig(TrainingConfig):
    """Supervised fine-tuning: every step of a training window is a response. By default the training scales with the
    data: one pass over large ones, at least ``min_steps`` optimizer steps on small ones, of which validation chooses
    the best weights."""

    epochs: float = Field(1.0, gt=0, le=1_000_000, description="passes over all training steps; may be fractional")
    min_steps: int = Field(
        4000,
        ge=0,
        le=MOST,
        description="optimizer steps at least, for which small data are passed more often; not if steps is set",
    )
    lr: float = Field(rates.RATES["sft"]["tiny"], gt=0, description=rates.about("sft"))
    batch: int = Field(32, ge=1, le=1_000_000, description="responses (training steps) per optimizer step")
    evaluations: int = Field(
        6,
        ge=0,
        le=MOST,
        description="times the validation metric is measured during training, and the best weights kept; 0: never, the "
        "last weights are kept",
    )


class PreferenceConfig(TrainingConfig):
    """Preference training. A method may change these settings, and has its loss, its sampler and its ε."""

    pairs: int = Field(
        2000, ge=1, le=MOST, description="maximum number of training pairs; users are drawn, then their last steps"
    )
    steps_per_user: int = Field(5, ge=1, le=MOST, description="how many of a user's last training steps become pairs")
    validation_pairs: int = Field(
        1000, ge=2, le=MOST, description="maximum number of held-out pairs for margin accuracy and τ"
    )
    epochs: int = Field(1, ge=1, le=1_000_000, description="passes over the pairs")
    lr: float = Field(rates.RATES["preference"]["tiny"], gt=0, description=rates.about("preference"))
    dropout: bool = Field(
        False,
        description="false: train without dropout, as the reference was computed; true: with the dropout "
        "of the model and of LoRA layers",
    )
    batch: int = Field(64, ge=1, le=1_000_000, description="pairs per optimizer step")
    trees: Literal["user", "prompt"] = Field(
        "user", description="user: a user's pairs share a tree and an optimizer step; prompt: each pair by itself"
    )


class ValidationConfig(Section):
    """The validation part: what is measured on it during training, and on whom."""

    metric: str = Field("ndcg@10", description="metric that early stopping looks at, see `ls metrics`")
    users: int = Field(
        500, ge=0, le=MOST, description="measured on a fixed random subset of this many validation users; 0: all"
    )
    probes: int = Field(
        10_000, ge=2, le=MOST, description="maximum number of users on whom a preference oracle is measured"
    )


class ScoringConfig(Section):
    """How a language model scores titles. By the sum or the mean of token log-probs: the protocol says."""

    batch_tokens: int = Field(4096, ge=64, le=MOST, description="tokens per forward pass")


class RunConfig(Section):
    """A whole run: data sets x methods x seeds."""

    profile: str = Field(min_length=1, max_length=100, description="the profile's name; default: its file's")
    about: str = Field("", description="description in `ls profiles`")
    seeds: int = Field(1, ge=1, le=1000, description="seeds first_seed, first_seed + 1, …")
    first_seed: int = Field(0, ge=0, le=MOST, description="the first of the seeds")
    threads: int = Field(0, ge=0, le=1024, description="torch threads; 0: torch's default")
    batch_tokens: int = Field(
        2048, ge=64, le=MOST, description="tokens per forward and backward pass; more take more memory and less time"
    )
    checkpoint_seconds: float = Field(15.0, gt=0, le=MOST, description="seconds between checkpoints of a training")
    stage_gigabytes: float = Field(
        0.0,
        ge=0,
        le=MOST,
        description="finished stages that take more are removed, the longest unused first; 0: no limit",
    )
    methods: list[str] = Field(min_length=1, description="names of `ls methods`")
    protocols: list[str] = Field(
        ["candidates-sum"],
        min_length=1,
        description="names of `ls protocols`; the first decides how self-hard and early stopping score titles",
    )
    datasets: dict[str, DatasetConfig] = Field(min_length=1, description="[datasets.NAME]: one section each")
    model: ModelConfig = ModelConfig()
    prompt: PromptConfig = PromptConfig()
    sft: SFTConfig = SFTConfig()
    preference: PreferenceConfig = PreferenceConfig()
    scoring: ScoringConfig = ScoringConfig()
    validation: ValidationConfig = ValidationConfig()
    method: Tables = Field(
        default_factory=dict,
        description="[method.NAME]: settings of one method, such as loss.beta, sampler or rejected; NAME may be a "
        "pattern such as 'rosepo*'",
    )
    losses: Tables = Field(default_factory=dict, description="[losses.NAME]: settings of a loss in every method")
    samplers: Tables = Field(default_factory=dict, description="[samplers.NAME]: settings of a sampler, everywhere")
    smoothings: Tables = Field(default_factory=dict, description="[smoothings.NAME]: settings of a smoothing")
    oracles: Tables = Field(default_factory=dict, description="[oracles.NAME]: settings of an oracle or recommender")

    @model_validator(mode="after")
    def _named(self) -> RunConfig:
        for name in self.datasets:
            check_name("datasets", name)
        return self

    @model_validator(mode="after")
    def _learning_rates(self) -> RunConfig:
        """A rate that is not given is that of the model's kind. It still counts as not given: where a data set has
        another model, it has another rate."""
        for name, own in rates.RATES.items():
            section = getattr(self, name)
            if "lr" not in section.model_fields_set:
                copy = section.model_copy()
                object.__setattr__(copy, "lr", own[self.model.kind])
                object.__setattr__(self, name, copy)
        return self

"""One call of sequence_logprob through its kernels, with numpy between them.

``everything.py LIBRARY`` makes such calls; ``everything.py LIBRARY NUMBER`` runs a planted fault first."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from harness import DTYPES, FLAG, Kernels, computed, decode, encode, operation

PREPARE = "target:p row:p sequence:p rows:i vocabulary:i sequences:i row_key:p sequence_key:p clean_target:p logp:p"
TARGET_LOGITS = "hidden:p weight:p bias:p width:i target:p row_of_target:p exact:p"
ROWS = (
    "logits:p stride:i vocabulary:i first:i begin:p order:p target:p exact:p scale:a cap:a gradient:b lse:p logp:p "
    "slope:p"
)
COLUMNS = "logits:p stride:i first:i columns:i begin:p order:p target:p sequence:p grad:p logp:p lse:p scale:a cap:a"
ROW_GRADIENTS = (
    "hidden:p weight:p u:p width:i begin:p order:p target:p sequence:p slope:p scale:a grad:p grad_hidden:p "
    "scaled_hidden:p coefficient:p"
)
ADD_TO_WEIGHT = "hidden:p width:i row_of_target:p coefficient:p targets:p by_target:p grad_weight:p"

TRIPLES_OF_ROW = (1, 0, 5, 40, 1, 2)  # 40: more than a warp, with repeated targets
SEQUENCES = 7  # of which 2 is empty, 5 has bad triples and 6 only such


@dataclass
class Case:
    """Inputs of a call, as the kernels store them."""

    dtype: str
    vocabulary: int
    width: int
    scale: float
    cap: float
    hidden: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    target: np.ndarray
    row: np.ndarray
    sequence: np.ndarray
    grad: np.ndarray
    rows: int = len(TRIPLES_OF_ROW)
    sequences: int = SEQUENCES

    @property
    def half(self) -> bool:
        return self.dtype in DTYPES[2:]


@dataclass
class Result:
    """What each kernel was given and left, by name, and the flag as the triples and the rows left it."""

    arrays: dict[str, np.ndarray]
    triples_flag: np.ndarray = field(default_factory=lambda: np.zeros(1, FLAG))
    rows_flag: np.ndarray = field(default_factory=lambda: np.zeros(1, FLAG))

    def __getattr__(self, name: str) -> np.ndarray:
        return self.arrays[name]


def make_case(dtype: str, vocabulary: int, width: int, cap: float, random: np.random.Generator) -> Case:
    """Triples in no order, targets repeated in a row and over sequences, and one triple for each way to be bad."""
    row = np.repeat(np.arange(len(TRIPLES_OF_ROW)), TRIPLES_OF_ROW)
    target = random.integers(0, vocabulary, len(row))
    many = np.flatnonzero(row == 3)
    target[many] = random.choice(random.integers(0, vocabulary, 12), len(many))
    sequence = random.choice([0, 1, 3, 4, 5], len(row))
    bad_target, bad_row, bad_sequence = [-1, vocabulary, 0, 0, 0, 0], [0, 1, -7, 6, 2, 3], [5, 6, 6, 5, -1, SEQUENCES]
    order = random.permutation(len(row) + 6)
    target, row, sequence = (
        np.concatenate([good, bad])[order].astype(np.int64)
        for good, bad in ((target, bad_target), (row, bad_row), (sequence, bad_sequence))
    )
    spread = 4 / np.sqrt(width)
    return Case(
        dtype=dtype,
        vocabulary=vocabulary,
        width=width,
        scale=0.7,
        cap=cap,
        hidden=encode(random.normal(size=(len(TRIPLES_OF_ROW), width)), dtype),
        weight=encode(random.normal(size=(vocabulary, width)) * spread, dtype),
        bias=encode(random.normal(size=vocabulary), dtype),
        target=target,
        row=row,
        sequence=sequence,
        grad=encode(random.normal(size=SEQUENCES) * (np.arange(SEQUENCES) != 1), computed(dtype)),  # sequence 1: zero
    )


def padded(values: np.ndarray, dtype: str) -> np.ndarray:
    """Rows of values at a stride of 16 bytes; the padding is not a number."""
    stored = encode(values, dtype)
    lanes = 16 // stored.itemsize
    out = encode(np.full((len(values), -(-values.shape[1] // lanes) * lanes), np.nan), dtype)
    out[:, : values.shape[1]] = stored
    return out


def segments(kernels: Kernels, keys: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(keys, kind="stable")
    begin = np.full(count + 1, -1, np.int64)
    kernels.run("segment_starts", keys[order], len(keys), count, begin)
    return begin, order


def run(kernels: Kernels, case: Case, seed: int, gradient: bool = True) -> Result:
    """The whole call, in two chunks of rows and one block of columns, from V // 3 on."""
    kernels.seed(seed)
    dtype, wide = case.dtype, computed(case.dtype)
    code, triples = DTYPES.index(dtype), len(case.target)
    out = {name: np.full(triples, -9, np.int64) for name in ("row_key", "sequence_key", "clean_target")}
    out |= {name: np.full(triples, np.nan, wide) for name in ("logp", "exact", "slope")}
    result = Result(out)
    sizes = {"rows": case.rows, "vocabulary": case.vocabulary, "sequences": case.sequences}
    prepared = {name: out[name] for name in ("row_key", "sequence_key", "clean_target", "logp")}
    given = {"target": case.target, "row": case.row, "sequence": case.sequence}
    preparation = operation(dtype, PREPARE, **given, **sizes, **prepared)
    kernels.run("prepare_triples", code, preparation, triples, result.triples_flag)
    out["begin"], out["order"] = segments(kernels, out["row_key"], case.rows)
    out["sequence_begin"], out["sequence_order"] = segments(kernels, out["sequence_key"], case.sequences)
    by_row = {"begin": out["begin"], "order": out["order"], "target": out["clean_target"]}
    squash = {"scale": case.scale, "cap": case.cap}
    if case.half:
        at = {"target": out["clean_target"], "row_of_target": out["row_key"], "exact": out["exact"]}
        head = {"hidden": case.hidden, "weight": case.weight, "bias": case.bias, "width": case.width}
        kernels.run("target_logits", code, operation(dtype, TARGET_LOGITS, **head, **at), triples)

    logits = decode(case.hidden, dtype) @ decode(case.weight, dtype).T + decode(case.bias, dtype)
    out["logits"] = padded(logits, dtype)
    out["gradient"] = out["logits"].copy()
    out["lse"] = np.full(case.rows, np.nan, wide)
    for first, count in ((2, case.rows - 2), (0, 2)):
        chunk = operation(
            dtype,
            ROWS,
            logits=out["gradient"][first:],
            stride=out["logits"].shape[1],
            vocabulary=case.vocabulary,
            first=first,
            **by_row,
            **squash,
            exact=out["exact"] if case.half else None,
            gradient=gradient,
            lse=out["lse"],
            logp=out["logp"],
            slope=out["slope"] if case.cap else None,
        )
        kernels.run("rows", code, chunk, count, result.rows_flag)
    out["sums"] = np.full(case.sequences, -9, wide)
    arrays = (out["sequence_begin"], out["sequence_order"], out["logp"])
    kernels.run("sequence_sums", code, *arrays, case.sequences, out["sums"])
    if gradient:
        backward(kernels, case, out, logits)
    return result


def backward(kernels: Kernels, case: Case, out: dict[str, np.ndarray], logits: np.ndarray) -> None:
    dtype, code, triples = case.dtype, DTYPES.index(case.dtype), len(case.target)
    by_row = {"begin": out["begin"], "order": out["order"], "target": out["clean_target"], "sequence": case.sequence}
    probabilities = decode(out["gradient"][:, : case.vocabulary], dtype)
    out["u"] = encode(probabilities @ decode(case.weight, dtype), dtype)
    out["grad_hidden"], out["scaled_hidden"] = np.full_like(case.hidden, 7), np.full_like(case.hidden, 7)
    out["coefficient"] = np.zeros(triples, computed(dtype))
    gradients = operation(
        dtype,
        ROW_GRADIENTS,
        hidden=case.hidden,
        weight=case.weight,
        u=out["u"],
        width=case.width,
        **by_row,
        slope=out["slope"] if case.cap else None,
        scale=case.scale,
        grad=case.grad,
        grad_hidden=out["grad_hidden"],
        scaled_hidden=out["scaled_hidden"],
        coefficient=out["coefficient"],
    )
    kernels.run("row_gradients", code, gradients, case.rows)

    by_target = np.argsort(case.target, kind="stable")
    out["product"] = encode(probabilities.T @ decode(out["scaled_hidden"], dtype), dtype)
    out["grad_weight"] = out["product"].copy()
    addition = operation(
        dtype,
        ADD_TO_WEIGHT,
        hidden=case.hidden,
        width=case.width,
        row_of_target=case.row,
        coefficient=out["coefficient"],
        targets=case.target[by_target],
        by_target=by_target,
        grad_weight=out["grad_weight"],
    )
    kernels.run("add_to_weight", code, addition, triples)

    first = case.vocabulary // 3
    out["columns"] = padded(logits[:, first:], dtype)
    block = operation(
        dtype,
        COLUMNS,
        logits=out["columns"],
        stride=out["columns"].shape[1],
        first=first,
        columns=case.vocabulary - first,
        **by_row,
        grad=case.grad,
        logp=out["logp"],
        lse=out["lse"],
        scale=case.scale,
        cap=case.cap,
    )
    kernels.run("columns", code, block, case.rows)


if __name__ == "__main__":
    emulated = Kernels(Path(sys.argv[1]))
    if sys.argv[2:]:
        emulated.run("planted", int(sys.argv[2]), np.zeros(64, np.int64))
    for name in DTYPES:
        for sizes in ((1, 64), (7, 3), (1000, 130), (4099, 64)):
            for limit in (0.0, 5.0):
                run(emulated, make_case(name, *sizes, limit, np.random.default_rng(0)), seed=0)
    print("done")

"""Worst errors of sequence_logprob and of the naive head against float64. As a program it prints them in Markdown:

python tests/ops/logprob_errors.py
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from logprob_cases import DTYPES, QUANTITIES, Case, call, draw, error, exact, generator, largest, naive

from rosepo_bench.engine.ops import library

SEEDS = 3
KEPT, AGAIN = {"memory_budget": 256 << 20}, {"memory_budget": 0}


def plain(dtype: torch.dtype, seed: int) -> Case:
    """A target a row, as in supervised fine-tuning."""
    case = draw(129, 1003, 64, dtype, triples=129, bias=True, seed=seed)
    return replace(case, row_of_target=torch.arange(129))


def shared(dtype: torch.dtype, seed: int) -> Case:
    """Six targets a row, the commonest token on every one, under a cap: candidates that share their first rows."""
    case = draw(300, 1003, 64, dtype, triples=1800, bias=True, soft_cap=30.0, seed=seed)
    row = torch.arange(300).repeat(6)
    return replace(case, row_of_target=row, targets=torch.where(torch.arange(1800) < 300, 7, case.targets))


def sure(dtype: torch.dtype, seed: int) -> Case:
    """Two targets a row among logits of about 0 and one of 60: the first of them unlikely, the second nearly certain
    (1 - p is about 5e-6), with an upstream gradient for the second alone."""
    rows, vocabulary = 48, 200
    random = generator("sure", str(dtype), seed)
    weight = 0.01 * torch.randn(vocabulary, 8 + rows, generator=random, dtype=torch.float64)
    weight[:rows, 8:] = torch.eye(rows)
    hidden = torch.cat([torch.randn(rows, 8, generator=random), torch.eye(rows)], 1).double()
    hidden[torch.arange(rows), 8 + torch.arange(rows)] = 60.0
    bias = torch.full((vocabulary,), 40.0) + 4 * torch.rand(vocabulary, generator=random)
    bias[:rows] = 0
    unlikely = torch.randint(rows, vocabulary, (rows,), generator=random)
    order = torch.arange(rows)
    case = Case(
        hidden,
        weight,
        bias.double(),
        targets=torch.cat([unlikely, order]),
        row_of_target=torch.cat([order, order]),
        sequence_of_target=torch.cat([torch.full((rows,), rows), order]),
        num_sequences=rows + 1,
        grad=torch.cat([torch.rand(rows, generator=random) + 0.5, torch.zeros(1)]).double(),
    )
    return case.to(dtype)


CASES = {"one target a row": plain, "six targets a row, soft cap": shared, "sure tokens": sure}
# What is called by which name, and with which options it is computed.
ROWS = (
    ("logps", "logps", KEPT),
    ("grad hidden", "grad hidden", KEPT),
    ("grad weight", "grad weight, probabilities kept", KEPT),
    ("grad weight", "grad weight, computed again", AGAIN),
    ("grad bias", "grad bias, probabilities kept", KEPT),
    ("grad bias", "grad bias, computed again", AGAIN),
)


def worst_errors(case_name: str, dtype: torch.dtype) -> Iterator[tuple[str, float, float, float]]:
    """(quantity, ours, naive, largest): worst absolute errors over SEEDS draws, and the tensor's largest magnitude."""
    drawn = [CASES[case_name](dtype, seed) for seed in range(SEEDS)]
    wanted = [dict(zip(QUANTITIES, exact(case), strict=True)) for case in drawn]
    plainly = [dict(zip(QUANTITIES, naive(case), strict=True)) for case in drawn]
    ours = {budget["memory_budget"]: [call(case, **budget) for case in drawn] for budget in (KEPT, AGAIN)}
    for quantity, label, budget in ROWS:
        keep = slice(None) if (case_name, quantity) != ("sure tokens", "logps") else slice(-1)  # the unlikely: not sure
        truth = [x[quantity][keep] for x in wanted]
        yield (
            label,
            max(error(x[quantity][keep], y) for x, y in zip(ours[budget["memory_budget"]], truth, strict=True)),
            max(error(x[quantity][keep], y) for x, y in zip(plainly, truth, strict=True)),
            max(map(largest, truth)),
        )


def main() -> None:
    state = library.info()
    print("# Worst errors of sequence_logprob\n")
    print(f"CPU level {state['isa']}, torch {torch.__version__}, build {state['build_id']}; {SEEDS} draws each. Errors")
    print("are absolute, against float64 on the same rounded numbers; naive is log_softmax of all logits in the same")
    print("dtype (float32 above 16 bits). `python tests/ops/logprob_errors.py` prints this.\n")
    print("| case | dtype | quantity | largest | ours | naive | ours / naive |")
    print("|:--|:--|:--|--:|--:|--:|--:|")
    for case in CASES:
        for dtype in DTYPES:
            for label, ours, naively, most in worst_errors(case, dtype):
                ratio = f"{ours / naively:.2f}" if naively else "–"
                print(f"| {case} | {str(dtype)[6:]} | {label} | {most:.1e} | {ours:.1e} | {naively:.1e} | {ratio} |")


if __name__ == "__main__":
    main()

"""The audit on made-up files: leaks in a tenth of the rows, and p-values of honest files: results/audit.md.

Takes an hour on one core; ``--honest`` and ``--limit`` make it shorter."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import audit_files
import numpy as np
from jaxtyping import Float64
from scipy import stats

from rosepo_bench.base import store
from rosepo_bench.evaluation.audit.audit import audit
from rosepo_bench.evaluation.audit.testing import EXCEEDANCES, LEVEL, REDRAWS
from rosepo_bench.report.markdown import paragraph, table

ROWS, HONEST_ROWS = 300, 150


def leaks(limit: int) -> list[list[str]]:
    """Each leak once: what is flagged, the strongest first."""
    rows = []
    for seed, (name, (_, right)) in enumerate(audit_files.LEAKS.items()):
        began = time.perf_counter()
        found = audit(audit_files.leaking(name, seed, ROWS), limit=limit)
        assert found.outcome is not None
        score = next(one for one in found.outcome.attacks if one.attack == right)
        told = [right, f"{score.hits / found.attacked:.3f}", f"{score.studentised:+.1f}", f"{score.p:.4f}"]
        rows.append([name, *told, ", ".join(found.leaks) or "none", str(found.outcome.redraws)])
        print(*rows[-1], f"{time.perf_counter() - began:.0f} s", sep="  ", flush=True)
    return rows


def p_values(kind: str, files: int) -> Float64[np.ndarray, " files"]:
    """Of honest files; a random point within the step of a sequential p-value, so that they can be uniform."""
    found, rng = [], np.random.default_rng(audit_files.KINDS.index(kind))
    for seed in range(files):
        outcome = audit(audit_files.honest(kind, 1000 + seed, HONEST_ROWS).table(), seed=seed).outcome
        assert outcome is not None
        p, done = outcome.p, outcome.redraws
        below = EXCEEDANCES / (done + 1) if p == EXCEEDANCES / done else p - 1 / (done + 1)
        found.append(rng.uniform(below, p))
    print(kind, files, "files", flush=True)
    return np.array(found)


def honest(files: int) -> list[list[str]]:
    """The uniformity of the p-values, by kind and together."""
    kinds = audit_files.KINDS
    found = {kind: p_values(kind, files // 3 + (place < files % 3)) for place, kind in enumerate(kinds)}
    found["all"] = np.concatenate(list(found.values()))
    return [
        [
            kind,
            str(len(p)),
            f"{stats.kstest(p, 'uniform').pvalue:.3f}",
            *(f"{(p < level).mean():.3f}" for level in (0.05, 0.1, 0.5)),
            f"{p.min():.4f}",
        ]
        for kind, p in found.items()
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--honest", type=int, default=200, metavar="N", help="honest files; default: 200")
    parser.add_argument(
        "--limit", type=int, default=REDRAWS, metavar="N", help=f"redraws of a leak; default: {REDRAWS}"
    )
    parser.add_argument("--into", type=Path, default=Path("results/audit.md"), metavar="FILE", help="Markdown")
    given = parser.parse_args(arguments)
    planted, uniform = leaks(given.limit), honest(given.honest)
    about = paragraph(
        f"Made-up files with {audit_files.SIZE} candidates a row out of 400 items, and as many rows of validation.",
        "`make audit-study` writes this page.",
    )
    leaky = paragraph(
        f"Each leak stands in a tenth of {ROWS} rows whose other negatives are uniform. HR@1, studentised excess",
        f"and p are of the attack that is meant for it; an attack is flagged at p < {LEVEL}.",
    )
    clean = paragraph(
        f"Honest files of {HONEST_ROWS} rows draw their negatives uniformly, by popularity, or some rows by one and",
        "some by the other. KS: p-value of a Kolmogorov-Smirnov test that the audits' p-values are uniform; then their",
        "shares below three levels.",
    )
    header = ["leak", "attack", "blind HR@1", "studentised", "p", "flagged", "redraws"]
    tables = (
        table(header, planted, left=["leak", "attack", "flagged"]),
        table(["negatives", "files", "KS", "p < .05", "p < .1", "p < .5", "least p"], uniform, left=["negatives"]),
    )
    parts = ["# The audit on made-up files", about, "## Leaks", leaky, tables[0], "## Honest files", clean, tables[1]]
    store.write_text(given.into, "\n\n".join(parts) + "\n")
    print(f"written: {given.into}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

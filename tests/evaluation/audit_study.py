"""The audit on made-up files: leaks in a tenth of the rows, and p-values of honest files: results/audit.md.

Takes half an hour on one idle core and is resumable; ``--honest`` and ``--limit`` make it shorter. After a change of
the audit, remove the folder of what is done."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import audit_files
import numpy as np
from scipy import stats

from rosepo_bench.base import store
from rosepo_bench.evaluation.audit.audit import audit
from rosepo_bench.evaluation.audit.testing import EXCEEDANCES, LEVEL, REDRAWS
from rosepo_bench.report.markdown import paragraph, table

T = TypeVar("T")
ROWS, HONEST_ROWS = (300, 600), 150  # of a leaking file; the second only where the first shows no leak


def leak(name: str, rows: int, limit: int) -> list[str]:
    """One leak: how its attack finds it, and all that is flagged, the strongest first."""
    right = audit_files.LEAKS[name][1]
    found = audit(audit_files.leaking(name, list(audit_files.LEAKS).index(name), rows), limit=limit)
    assert found.outcome is not None
    score = next(one for one in found.outcome.attacks if one.attack == right)
    told = [right, f"{score.hits / found.attacked:.3f}", f"{score.studentised:+.1f}", f"{score.p:.4f}"]
    return [name, *told, ", ".join(found.leaks) or "none", str(found.outcome.redraws)]


def p_values(kind: str, files: int) -> list[float]:
    """Of honest files; a random point within the step of a sequential p-value, so that they can be uniform."""
    found, rng = [], np.random.default_rng(audit_files.KINDS.index(kind))
    for seed in range(files):
        outcome = audit(audit_files.honest(kind, 1000 + seed, HONEST_ROWS).table(), seed=seed).outcome
        assert outcome is not None
        p, done = outcome.p, outcome.redraws
        below = EXCEEDANCES / (done + 1) if p == EXCEEDANCES / done else p - 1 / (done + 1)
        found.append(float(rng.uniform(below, p)))
    return found


def uniformity(kind: str, p: list[float]) -> list[str]:
    """Whether the p-values of honest files are uniform."""
    shares = [f"{np.mean(np.array(p) < level):.3f}" for level in (0.05, 0.1, 0.5)]
    return [kind, str(len(p)), f"{stats.kstest(p, 'uniform').pvalue:.3f}", *shares, f"{min(p):.4f}"]


def sizes(name: str, limit: int, out: Path) -> list[list[str]]:
    """A leak in files of growing size, until the attack that is meant for it is flagged."""
    found: list[list[str]] = []
    for rows in ROWS:
        path = out / f"leak-{list(audit_files.LEAKS).index(name)}-{rows}-{limit}.json"
        told = kept(path, partial(leak, name, rows, limit))
        found.append([told[0], str(rows), *told[1:]])
        if audit_files.LEAKS[name][1] in told[5].split(", "):
            break
    return found


def kept(path: Path, compute: Callable[[], T]) -> T:
    """What was computed before, or now."""
    if not path.is_file():
        store.write_json(path, compute())
        print(path, flush=True)
    found: T = store.read_json(path)
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--honest", type=int, default=200, metavar="N", help="honest files; default: 200")
    parser.add_argument(
        "--limit", type=int, default=REDRAWS, metavar="N", help=f"redraws of a leak; default: {REDRAWS}"
    )
    parser.add_argument("--into", type=Path, default=Path("results/audit.md"), metavar="FILE", help="Markdown")
    parser.add_argument("--out", type=Path, default=Path("build/audit"), metavar="DIR", help="folder of what is done")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    kinds = audit_files.KINDS
    planted = [told for name in audit_files.LEAKS for told in sizes(name, given.limit, given.out)]
    files = [given.honest // 3 + (place < given.honest % 3) for place in range(3)]
    found = {
        kind: kept(given.out / f"honest-{kind}-{count}.json", partial(p_values, kind, count))
        for kind, count in zip(kinds, files, strict=True)
    }
    found["all"] = [p for own in found.values() for p in own]
    uniform = [uniformity(kind, p) for kind, p in found.items()]
    about = paragraph(
        f"Made-up files with {audit_files.SIZE} candidates a row out of 400 items, and as many rows of validation.",
        "`make audit-study` writes this page.",
    )
    leaky = paragraph(
        "Each leak stands in a tenth of the rows of a file whose other negatives are uniform. HR@1, studentised",
        f"excess and p are of the attack that is meant for it; an attack is flagged at p < {LEVEL}. Where",
        f"{ROWS[0]} rows do not show the leak, {ROWS[1]} are tried.",
    )
    clean = paragraph(
        f"Honest files of {HONEST_ROWS} rows draw their negatives uniformly, by popularity, or half of each list by",
        "either law. KS: p-value of a Kolmogorov-Smirnov test that the audits' p-values are uniform; then",
        "their shares below three levels. Rows of different laws in one file, such as some uniform and some by",
        "popularity, cannot stand for each other: the audit asks for files whose rows are drawn alike.",
    )
    header = ["leak", "rows", "attack", "blind HR@1", "studentised", "p", "flagged", "redraws"]
    tables = (
        table(header, planted, left=["leak", "attack", "flagged"], whole=True),
        table(["negatives", "files", "KS", "p < .05", "p < .1", "p < .5", "least p"], uniform, left=["negatives"]),
    )
    parts = ["# The audit on made-up files", about, "## Leaks", leaky, tables[0], "## Honest files", clean, tables[1]]
    store.write_text(given.into, "\n\n".join(parts) + "\n")
    print(f"written: {given.into}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

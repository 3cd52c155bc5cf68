"""What each kernel should have left, in float64 from what it was given (equations: csrc/sequence_logprob.h)."""

from __future__ import annotations

import numpy as np
from everything import Case, Result
from harness import decode

Arrays = dict[str, np.ndarray]


def squash(case: Case, raw: np.ndarray) -> np.ndarray:
    return case.cap * np.tanh(case.scale * raw / case.cap) if case.cap else case.scale * raw


def slope(case: Case, x: np.ndarray) -> np.ndarray:
    return case.scale * (1 - (x / case.cap) ** 2) if case.cap else np.full_like(x, case.scale)


def triples_of(result: Result, row: int) -> np.ndarray:
    return result.order[result.begin[row] : result.begin[row + 1]]


def good(case: Case) -> np.ndarray:
    """Which triples are within their ranges."""
    limits = ((case.target, case.vocabulary), (case.row, case.rows), (case.sequence, case.sequences))
    return np.all([(values >= 0) & (values < limit) for values, limit in limits], axis=0)


def exact(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The targets' logits and, for the bound of their error, the same sum of absolute values; of good triples alone."""
    hidden, weight, bias = (decode(array, case.dtype) for array in (case.hidden, case.weight, case.bias))
    row, target = case.row[good(case)], case.target[good(case)]
    products = hidden[row] * weight[target]
    return products.sum(1) + bias[target], np.abs(products).sum(1) + np.abs(bias[target])


def rows(case: Case, result: Result) -> Arrays:
    """``logp`` and ``slope`` [M], NaN in triples without a row; ``lse`` [N]; ``p`` and ``gradient`` [N, V]."""
    raw = decode(result.logits[:, : case.vocabulary], case.dtype)
    out = {name: np.full(len(case.target), np.nan) for name in ("logp", "slope")}
    out |= {"lse": np.zeros(case.rows), "p": np.zeros_like(raw), "gradient": np.zeros_like(raw)}
    for row in range(case.rows):
        triples = triples_of(result, row)
        if not len(triples):
            continue
        targets = result.clean_target[triples]
        if case.half:
            raw[row, targets] = result.exact[triples]
        x = squash(case, raw[row])
        lse = out["lse"][row] = x.max() + np.log(np.exp(x - x.max()).sum())
        out["logp"][triples] = x[targets] - lse
        out["slope"][triples] = slope(case, x[targets])
        out["p"][row] = np.exp(x - lse)
        gradient = -out["p"][row]
        gradient[targets[0]] = np.exp(np.delete(x, targets[0]) - lse).sum()  # 1 - p without cancellation
        out["gradient"][row] = gradient * slope(case, x)
    return out


def sums(case: Case, result: Result) -> np.ndarray:
    """[S], from the log-probs as the kernel left them."""
    inside = (case.sequence >= 0) & (case.sequence < case.sequences)
    return np.bincount(case.sequence[inside], result.logp[inside].astype(np.float64), case.sequences)


def row_gradients(case: Case, result: Result) -> Arrays:
    """``grad_hidden``, ``scaled_hidden`` [N, d] and ``coefficient`` [M]."""
    u, hidden, weight = (decode(array, case.dtype) for array in (result.u, case.hidden, case.weight))
    out = {"grad_hidden": np.zeros_like(u), "scaled_hidden": np.zeros_like(u)}
    out["coefficient"] = np.zeros(len(case.target))
    for row in range(case.rows):
        triples = triples_of(result, row)
        if not len(triples):
            continue
        c = case.grad[case.sequence[triples]].astype(np.float64)
        coefficient = np.concatenate([[-c[1:].sum()], c[1:]]) * (result.slope[triples] if case.cap else case.scale)
        out["coefficient"][triples] = coefficient
        out["grad_hidden"][row] = c.sum() * u[row] + coefficient @ weight[result.clean_target[triples]]
        out["scaled_hidden"][row] = c.sum() * hidden[row]
    return out


def grad_weight(case: Case, result: Result) -> np.ndarray:
    """[V, d]: the product as it was, and the triples' own parts."""
    out, hidden = decode(result.product, case.dtype), decode(case.hidden, case.dtype)
    with_row = result.row_key >= 0
    added = result.coefficient[with_row, None].astype(np.float64) * hidden[result.row_key[with_row]]
    np.add.at(out, result.clean_target[with_row], added)
    return out


def columns(case: Case, result: Result) -> np.ndarray:
    """dloss/dlogits [N, columns], from lse and logp as the row kernel left them."""
    first = case.vocabulary // 3
    x = squash(case, decode(result.logits[:, first : case.vocabulary], case.dtype))
    out = np.zeros_like(x)
    for row in range(case.rows):
        triples = triples_of(result, row)
        if not len(triples):
            continue
        c = case.grad[case.sequence[triples]].astype(np.float64)
        x_target = result.logp[triples].astype(np.float64) + result.lse[row]
        p, slopes = np.exp(x[row] - result.lse[row]), slope(case, x[row])
        mine = np.zeros_like(p)
        for m, target in enumerate(result.clean_target[triples] - first):
            if target < 0:
                continue
            mine[target] += c[m]
            p[target], slopes[target] = np.exp(result.logp[triples[m]].astype(np.float64)), slope(case, x_target[m])
        out[row] = (mine - c.sum() * p) * slopes
    return out

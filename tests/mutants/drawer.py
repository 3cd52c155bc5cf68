"""Mutants drawn from the syntax trees of the wiring modules: the same ones for the same seed and sources.

No library draws them: mutmut 3.8 chooses tests by coverage of its own process, which a test's subprocess is not in,
cosmic-ray 8.7 changes the working tree and runs one command for all mutants, and neither takes a seeded sample."""

from __future__ import annotations

import ast
import copy
import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from entries import ROOT, Mutant, Plan, PlanError

PAIRS = [(ast.Lt, ast.LtE), (ast.Gt, ast.GtE), (ast.Eq, ast.NotEq), (ast.Is, ast.IsNot), (ast.In, ast.NotIn)]
COMPARED = {**dict(PAIRS), **{second: first for first, second in PAIRS}}
COMPUTED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
# What says nothing of results: types, messages, invariants, and f-strings, whose parts have no position of their own.
SKIPPED = (ast.Assert, ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom)
TYPES = ("annotation", "returns", "decorator_list")


def drawn(plan: Plan, root: Path = ROOT) -> list[Mutant]:
    """``plan.number`` mutants of the files that ``plan.tests`` names, without those judged equivalent. A mutant's rank
    is a hash of the seed and of what it changes, so that an edit elsewhere draws no others. PlanError: no such file."""
    if absent := [name for name in plan.tests if not (root / name).exists()]:
        raise PlanError(f"[tests]: there is no {', '.join(absent)}")
    files = {path for name in plan.tests for path in _files(root / name)}
    every = [mutant for path in sorted(files) for mutant in mutants(path, root, plan)]
    ranked = sorted(every, key=lambda one: hashlib.sha256(f"{plan.seed} {one.name} {one.breaks}".encode()).hexdigest())
    return [mutant for mutant in ranked if mutant.name not in plan.equivalent][: plan.number]


def _files(path: Path) -> list[Path]:
    return [path] if path.suffix == ".py" else list(path.rglob("*.py"))


def mutants(path: Path, root: Path, plan: Plan) -> Iterator[Mutant]:
    """Every mutant of one file, numbered within its function."""
    file, text = path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
    encoded, starts = text.encode(), [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line.encode()))
    numbers: Counter[str] = Counter()
    for function, node in _nodes(ast.parse(text), ""):
        if (changed := _changed(node)) is None:
            continue
        at = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        old, new = ast.unparse(node), ast.unparse(changed)
        source = (encoded[:at] + f"({new})".encode() + encoded[end:]).decode()
        numbers[function] += 1
        name = f"{path.stem}.{function} {numbers[function]}"
        yield Mutant(name, file, f"`{_clipped(old)}` is `{_clipped(new)}`", plan.tests_of(file), source, drawn=True)


def _clipped(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:35]} … {text[-22:]}"


def _nodes(node: ast.AST, function: str) -> Iterator[tuple[str, ast.expr]]:
    """The expressions within functions, each with its function's name."""
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if name in TYPES or not isinstance(child, ast.AST) or isinstance(child, SKIPPED):
                continue
            if isinstance(child, ast.keyword) and child.arg == "strict":  # of zip: a check, as an assert is
                continue
            if isinstance(child, ast.expr) and function:
                yield function, child
            inside = child.name if isinstance(child, ast.FunctionDef) else function
            yield from _nodes(child, inside)


def _changed(node: ast.expr) -> ast.expr | None:
    """What may be put in an expression's place."""
    new = copy.copy(node)
    match new:
        case ast.Compare(ops=[op]) if type(op) in COMPARED:
            new.ops = [COMPARED[type(op)]()]
        case ast.BinOp(op=op) if type(op) in COMPUTED and not any(map(_text, (new.left, new.right))):
            new.op = COMPUTED[type(op)]()
        case ast.BoolOp(op=op):
            new.op = ast.Or() if isinstance(op, ast.And) else ast.And()
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            new = new.operand
        case ast.Constant(value=bool()):
            new.value = not new.value
        case ast.Constant(value=int()):
            new.value += 1
        case ast.Call(args=[ast.Subscript() | ast.Attribute() as first, second, *_]) if _alike(first, second):
            new.args = [second, first, *new.args[2:]]
        case _:
            return None
    return new


def _text(node: ast.expr) -> bool:
    """Strings: their sums and paths have no other operator."""
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _alike(first: ast.Subscript | ast.Attribute, second: ast.expr) -> bool:
    """Two parts of one value, such as ``logps[:, 0], logps[:, 1]``: others have different types, and crash."""
    return type(first) is type(second) and ast.dump(first.value) == ast.dump(second.value)

"""Who imports whom in the package, read from its sources; as a program it draws the folders to docs/imports.png:

python tests/imports.py [checkout] [picture]
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "rosepo_bench"
COMPILED = "_forest"  # a module without Python source


def sources(root: Path = ROOT) -> dict[str, Path]:
    """The modules of the package by name, those of baselines/ under the name that they are installed by."""
    found = {}
    for path in sorted([*(root / PACKAGE).rglob("*.py"), *(root / "baselines").glob("*.py")]):
        parts = path.relative_to(root).with_suffix("").parts
        if "baselines" in parts[1:]:
            continue
        parts = (PACKAGE, *parts) if parts[0] == "baselines" else parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules among ``known`` that a file imports, inside functions and for types too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if alias.name != COMPILED:
                    yield inner if inner in known else node.module


def edges(known: dict[str, Path]) -> set[tuple[str, str]]:
    """(module, module that it imports), the package's own face left out."""
    every = {(name, other) for name, path in known.items() for other in imported(path, known)}
    return {(name, other) for name, other in every if name != other and PACKAGE not in (name, other)}


def house(name: str) -> str:
    """The folder that a module stands in, a house of the engine for itself; a module of the root is one too."""
    parts = name.split(".")[1:]
    return ".".join(parts[:2]) if parts[0] == "engine" and parts[1:2] != ["environment"] else parts[0]


def floors(arrows: set[tuple[str, str]], houses: set[str]) -> dict[str, int]:
    """The floor of each house: one above the highest that it imports. AssertionError: a circle."""
    level: dict[str, int] = {}
    while rest := houses - level.keys():
        free = {one for one in rest if all(other in level for name, other in arrows if name == one)}
        assert free, f"a circle among {', '.join(sorted(rest))}"
        level |= {one: 1 + max((level[other] for name, other in arrows if name == one), default=0) for one in free}
    return level


def direct(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The arrows without those that others imply: what a house imports by way of another one is left out."""
    below: dict[str, set[str]] = {}

    def reach(name: str) -> set[str]:
        if name not in below:
            below[name] = {far for one, other in arrows if one == name for far in {other, *reach(other)}}
        return below[name]

    return {(name, far) for name, far in arrows
            if not any(far in reach(other) for one, other in arrows if one == name and other != far)}  # fmt: skip


def draw(root: Path, picture: Path) -> None:
    """Folders as boxes with their number of modules, a floor for each length of the longest way down."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    known = sources(root)
    size = Counter(house(name) for name in known if name not in (PACKAGE, f"{PACKAGE}.profiles"))
    arrows = {(house(name), house(other)) for name, other in edges(known) if house(name) != house(other)}
    level = floors(arrows, set(size))
    rows = [sorted(one for one in size if level[one] == floor) for floor in range(1, max(level.values()) + 1)]
    place = {
        one: ((column + 0.5) / len(row) + 0.04 * (-1) ** floor, floor)
        for floor, row in enumerate(rows)
        for column, one in enumerate(row)
    }
    figure, axes = pyplot.subplots(figsize=(11, 1.0 * len(rows)), dpi=120)
    for name, other in sorted(direct(arrows)):
        axes.annotate(
            "",
            xy=(place[other][0], place[other][1] + 0.22),
            xytext=(place[name][0], place[name][1] - 0.22),
            arrowprops={"arrowstyle": "->", "color": "#9aa7b5", "lw": 0.8, "shrinkA": 0, "shrinkB": 0},
        )
    for one, (x, y) in place.items():
        label = f"{one} ({size[one]})" if size[one] > 1 else one
        axes.text(x, y, label, ha="center", va="center", fontsize=10, zorder=3,
                  bbox={"boxstyle": "round,pad=0.35", "fc": "#eef3f8", "ec": "#4a6076"})  # fmt: skip
    axes.set(xlim=(-0.05, 1.05), ylim=(-0.6, len(rows) - 0.4))
    axes.axis("off")
    axes.set_title("Imports of rosepo_bench (number of modules). Arrows that others imply are left out", fontsize=11)
    figure.savefig(picture, bbox_inches="tight", metadata={"Software": None})
    print(f"{len(size)} houses on {len(rows)} floors, {len(arrows)} arrows; written: {picture}")


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:]]
    draw(*(given or [ROOT]), *([] if len(given) > 1 else [ROOT / "docs" / "imports.png"]))

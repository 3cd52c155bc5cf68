"""Plots of a benchmark table, made from the CSV alone: time and peak memory over the size of the work."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rosepo_bench.bench.table import Row, read

FILES = {"time": "times.png", "peak_memory": "memory.png"}
_MARKS = "osD^vPX*<>"


def plot(source: Path, folder: Path) -> list[Path]:
    """Writes a figure for each metric of ``FILES`` that the CSV ``source`` has at two sizes or more; returns the paths.

    There is a panel for each setting, mode and allocator; bands reach from the 20th to the 80th percentile.
    """
    rows = [row for row in read(source) if row.p50 is not None]
    written = []
    for metric, name in FILES.items():
        panels = _panels(row for row in rows if row.metric == metric)
        if panels:
            _draw(panels, folder / name)
            written.append(folder / name)
    return written


def _panels(rows: Iterable[Row]) -> dict[str, list[Row]]:
    panels: dict[str, list[Row]] = {}
    for row in rows:
        title = f"{row.work}, {row.mode}, {row.setting}" + ("" if row.allocator == "default" else f", {row.allocator}")
        panels.setdefault(title, []).append(row)
    return {title: found for title, found in panels.items() if len({row.x for row in found}) > 1}


def _draw(panels: dict[str, list[Row]], path: Path) -> None:
    # The object-oriented interface: no display, and no state left in pyplot.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    providers = list(dict.fromkeys(row.provider for rows in panels.values() for row in rows))
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.4 * lines + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for axis, (title, rows) in zip(axes, panels.items(), strict=False):
        _panel(axis, title, rows, providers)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    shown = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=min(4, 2 * columns), fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})


def _colour(place: int) -> Any:
    """One of twenty colours, the ten dark ones first."""
    from matplotlib import colormaps

    return colormaps["tab20"](2 * place % 20 + place // 10 % 2)


def _panel(axis: Any, title: str, rows: list[Row], providers: list[str]) -> None:
    for place, provider in enumerate(providers):
        mine = sorted((row for row in rows if row.provider == provider), key=lambda row: row.x)
        if not mine:
            continue
        x = [row.x for row in mine]
        colour, mark = _colour(place), _MARKS[place % len(_MARKS)]
        axis.fill_between(x, [row.p20 for row in mine], [row.p80 for row in mine], color=colour, alpha=0.2)
        axis.plot(x, [row.p50 for row in mine], color=colour, marker=mark, markersize=4, label=provider)
    axis.set_title("\n".join(textwrap.wrap(title, 62)), fontsize=8)
    axis.set_xscale("log", base=2)
    sizes = sorted({row.x for row in rows})
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axis.set_yscale("log")
    axis.set_xlabel(rows[0].x_name)
    axis.set_ylabel(f"{rows[0].metric.replace('_', ' ')}, {rows[0].unit}")
    axis.grid(alpha=0.3)

"""Which record in an output folder is the current one of each cell, and why a cell has none."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rosepo_bench.base import store
from rosepo_bench.base.errors import UserError
from rosepo_bench.base.records import Failure, Record, read_records
from rosepo_bench.runs.cells import Cell


@dataclass
class Index:
    """``cells`` maps data set/method/seed to the key that was planned last and, if it failed, the reason. Stored in
    ``index.json`` in the order of planning."""

    out: Path
    cells: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, out: Path) -> Index:
        """The folder's index; an empty one for a new folder."""
        path = out / "index.json"
        cells = store.read_json(path) if path.is_file() else {}
        fields = {"dataset", "method", "seed", "key", "failed"}
        if not isinstance(cells, dict) or any(not fields <= set(entry) for entry in cells.values()):
            raise UserError(f"{path}: not the index of an output folder; delete it and run again")
        return cls(out, cells)

    def plan(self, planned: list[Cell]) -> None:
        """Makes these cells the current ones of their names; other names are unchanged."""
        before = dict(self.cells)
        for cell in planned:
            self.cells[cell.name] = {
                "dataset": cell.pipeline.name,
                "method": cell.method.name,
                "seed": cell.pipeline.seed,
                "key": cell.key,
                "failed": "",
            }
        if self.cells != before:
            self._write()

    def failed(self, cell: Cell, reason: str) -> None:
        self.cells[cell.name]["failed"] = reason
        self._write()

    def done(self, cell: Cell) -> None:
        if self.cells[cell.name]["failed"]:
            self.cells[cell.name]["failed"] = ""
            self._write()

    def _write(self) -> None:
        store.write_json(self.out / "index.json", self.cells)

    def everything(self) -> tuple[list[Record], list[Failure]]:
        """Current records, and the cells without one."""
        found = read_records(self.out, {entry["key"] for entry in self.cells.values()})
        keys = {record.key for record in found}
        absent = [
            (str(entry["dataset"]), str(entry["method"]), int(entry["seed"]), str(entry["failed"]))
            for entry in self.cells.values()
            if entry["key"] not in keys
        ]
        return found, absent

    def of_dataset(self, name: str) -> tuple[list[Record], list[Failure]]:
        """The same for one data set."""
        records, absent = self.everything()
        return [r for r in records if r.dataset == name], [f for f in absent if f[0] == name]

"""From pytest-benchmark's JSON to results: one row a case, repeated runs merged, nothing that names a path."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Key = tuple[str, str, str, str, str]
IDENTITY = ("verb", "framework", "name", "model", "dtype")


@dataclass
class Result:
    """A case: its median (the best run's, if it ran several times), or why it did not run."""

    verb: str
    framework: str
    name: str
    model: str
    dtype: str
    median_ms: float | None = None
    min_ms: float | None = None
    rounds: int = 0
    runs_ms: list[float] = field(default_factory=list)  # the median of each run
    notes: dict[str, Any] = field(default_factory=dict)  # bytes, elements, leaves, launches, relative_error...
    skipped: str = ""

    @property
    def key(self) -> Key:
        return self.verb, self.framework, self.name, self.model, self.dtype

    @property
    def gb_per_s(self) -> float | None:
        """Bytes of the parameters, counted once, over time: the same count for all, so that it compares."""
        return self.notes["bytes"] / self.median_ms / 1e6 if self.median_ms else None


def collect(file: Path, absent: list[dict[str, str]]) -> dict[Key, Result]:
    """Results by key, in the order of the run. `absent`: cases that were skipped or failed, with `reason`."""
    found: dict[Key, Result] = {}
    for entry in json.loads(file.read_text())["benchmarks"] if file.exists() and file.stat().st_size else []:
        notes = entry["extra_info"]
        new = Result(*(notes.pop(name) for name in IDENTITY))
        if "first_seconds" in notes:  # taken inside the process, without the start of Python
            new.median_ms = new.min_ms = 1e3 * notes.pop("first_seconds")
        else:
            new.median_ms, new.min_ms = (1e3 * entry["stats"][k] for k in ("median", "min"))
        new.rounds, new.notes = entry["stats"]["rounds"], notes
        new.runs_ms = [new.median_ms]
        known = found.setdefault(new.key, new)
        if known is not new:
            runs = known.runs_ms + new.runs_ms
            found[new.key] = best = min(known, new, key=lambda r: r.median_ms or 0.0)
            best.runs_ms = runs
    for case in absent:
        row = Result(*(case[name] for name in IDENTITY))  # type: ignore[arg-type]
        row.skipped = case["reason"]
        found.setdefault(row.key, row)
    return found


def save(file: Path, results: dict[Key, Result], **more: Any) -> None:
    rows = [asdict(r) | {"gb_per_s": r.gb_per_s} for r in results.values()]
    file.write_text(json.dumps(more | {"results": rows}, indent=1) + "\n")

"""A pytest plugin: a bar with the case that runs now, and a list of what did not run and why."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import rich.progress
from rich.console import Console


class Progress:
    """On a terminal a live bar; elsewhere (a log) a line for each model and dtype."""

    def __init__(self, console: Console) -> None:
        # pytest captures what tests print; the bar writes to the stream as it was before
        self._console = Console(file=sys.__stderr__, width=console.width)
        columns = ("{task.percentage:>3.0f}%", rich.progress.BarColumn(30), rich.progress.TimeElapsedColumn(),
                   "{task.completed}/{task.total} {task.description}")  # fmt: skip
        self._bar = rich.progress.Progress(*columns, console=self._console, transient=True)
        self._task = self._bar.add_task("collecting", total=None)
        self._group = ""
        self.absent: list[dict[str, str]] = []

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._bar.update(self._task, total=len(session.items))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        case = nodeid.split("::")[-1].removeprefix("test_")
        self._bar.update(self._task, description=case)
        group = "-".join(case.partition("[")[2].split("-")[:-1])
        if group != self._group and not self._console.is_terminal:
            done, total = self._bar.tasks[0].completed, self._bar.tasks[0].total
            print(f"{done:>4.0f}/{total:.0f} {group}", file=sys.__stderr__, flush=True)
        self._group = group

    def pytest_runtest_logfinish(self) -> None:
        self._bar.advance(self._task)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        case: dict[str, str] = dict(report.user_properties).get("case", {})  # type: ignore[assignment]
        if case and report.skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.absent.append(case | {"reason": reason.removeprefix("Skipped: ")})
        elif case and report.failed:
            self.absent.append(case | {"reason": "failed"})

    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """Silence the dots: the bar is the progress. Failures keep their letter and their text at the end."""
        if report.failed:
            return None
        return (report.outcome if report.when == "call" or report.skipped else ""), "", ""

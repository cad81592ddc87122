"""`fused-penalty`, also as `python -m fused_penalty`: `inspect` a checkpoint, or let `doctor` see what runs here."""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checkpoint.report import Report

EXTRA = 'pip install "fused-penalty[inspect]"'
SORTS = ("file", "path", "size", "abs", "square", "max", "zeros", "nonfinite")
NAMED = 10  # leaves with non-finite numbers that --check names

INSPECT = """\
Reads each PATH once, without loading it whole: a .safetensors file, the index.json of a sharded checkpoint, or a folder
with either. Several PATHs are several tables, one after the other. With --against OTHER the numbers are those of the
differences PATH - OTHER, leaf by leaf: zeros are numbers that did not change."""


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from . import __version__

        print(f"fused-penalty {__version__}")
        parser.exit()


def _depth(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of steps, such as 0 or 2")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fused-penalty", description="The tools of fused_penalty.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    commands.add_parser(
        "doctor",
        help="versions, devices, backends and why one does not run: what to put into a bug report",
        description="Says what runs here and what to do about what does not. Exit status 1 if something is wrong.",
    )
    command = commands.add_parser(
        "inspect", help="Σ|x|, Σx², max|x|, zeros and non-finite values of each leaf of a checkpoint",
        description=INSPECT,
    )  # fmt: skip
    command.add_argument("paths", type=Path, metavar="PATH", nargs="+")
    command.add_argument("--against", type=Path, metavar="OTHER", help="compare one PATH with another checkpoint")
    command.add_argument("--sort", choices=SORTS, default="file", help="by name, or by a number, largest first")
    command.add_argument(
        "--depth", type=_depth, metavar="N",
        help="one row for all leaves with the same first N steps of their path; without it, tables of more than 1,000 "
        "rows are shortened so",
    )  # fmt: skip
    command.add_argument("--check", action="store_true", help="exit status 1 if there is a NaN or an infinity")
    command.add_argument("--json", action="store_true", help="print JSON instead of a table; for several PATHs a list")
    command.add_argument("--plot", type=Path, metavar="FILE", help="also draw a picture of one PATH (png, svg, pdf)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, 1 if `--check` or `doctor` found something, or 2 with a message on
    stderr."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command == "doctor":
        from .doctor import doctor

        return doctor()
    if len(options.paths) > 1 and (options.against or options.plot):
        parser.error(f"--{'against' if options.against else 'plot'} takes one PATH, and {len(options.paths)} are given")
    collects = gc.isenabled()
    gc.disable()  # rows have no cycles, and to look for some in 100,000 of them takes a third of the time
    try:
        return _inspect(options)
    except ModuleNotFoundError as e:
        if (e.name or "").startswith("fused_penalty"):
            raise
        return _fail(f"{e.name} is not installed: {EXTRA}")
    except (OSError, ValueError, RuntimeError, MemoryError) as e:
        return _fail(str(e) or type(e).__name__)
    finally:
        if collects:
            gc.enable()


def _fail(message: str) -> int:
    from .checkpoint.names import printable

    print(f"error: {printable(message)}", file=sys.stderr)
    return 2


def _inspect(options: argparse.Namespace) -> int:
    import rich.progress
    from rich.console import Console

    from .checkpoint import report as reader
    from .checkpoint import summary, view

    if options.plot:
        from .checkpoint import picture  # fails before the file is read if matplotlib is missing

        picture.check_target(options.plot)
    columns = (rich.progress.BarColumn(), rich.progress.DownloadColumn(), rich.progress.TransferSpeedColumn())
    terminal = Console(stderr=True)
    # not a terminal: do not wrap the table
    output = Console() if sys.stdout.isatty() else Console(width=1000)
    found: list[Report] = []
    printed = []
    for path in options.paths:
        with rich.progress.Progress(
            *columns, console=terminal, transient=True, disable=not terminal.is_terminal
        ) as bar:
            task = bar.add_task("", total=None)
            advance = lambda done, total, task=task, bar=bar: bar.update(task, advance=done, total=total)  # noqa: E731
            report = reader.inspect(path, advance, options.against)
        found.append(report)
        if options.depth is not None:
            report = summary.grouped(report, options.depth)
        elif not options.json:
            report = summary.short(report)
        if options.sort != "file":
            report = report.sorted(options.sort)
        if options.json:
            printed.append(report.as_dict())
        else:
            view.show(report, output)
    if options.json:
        print(json.dumps(printed if len(printed) > 1 else printed[0], indent=2, allow_nan=False))
    if options.plot:
        picture.plot(summary.short(report), options.plot)
    return _checked(found) if options.check else 0


def _checked(reports: Sequence[Report]) -> int:
    """Name the leaves with non-finite numbers; 1 if there are any."""
    from .checkpoint.names import printable

    bad = [(report.file, row) for report in reports for row in report.rows if row.nonfinite]
    for file, row in bad[:NAMED]:
        where = f"{printable(file)}: {printable(row.path)}"
        print(f"non-finite: {where}: {row.nonfinite:,} of {row.size:,} numbers", file=sys.stderr)
    if len(bad) > NAMED:
        print(f"non-finite: and {len(bad) - NAMED:,} more leaves", file=sys.stderr)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())

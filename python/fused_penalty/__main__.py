"""`python -m fused_penalty inspect MODEL.safetensors`: what the leaves of a checkpoint hold."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

EXTRA = 'pip install "fused-penalty[inspect]"'
SORTS = ("file", "path", "size", "abs", "square", "max", "zeros", "nonfinite")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0, or 2 with a message on stderr."""
    parser = argparse.ArgumentParser(prog="python -m fused_penalty", description="The tools of fused_penalty.")
    command = parser.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "inspect",
        help="Σ|x|, Σx², max|x|, zeros and non-finite values of each leaf of a checkpoint",
        description="Reads a safetensors file once, without loading it whole.",
    )
    command.add_argument("file", type=Path, metavar="MODEL.safetensors")
    command.add_argument("--sort", choices=SORTS, default="file", help="by name, or by a number, largest first")
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command.add_argument("--plot", type=Path, metavar="FILE", help="also draw a picture (png, svg, pdf)")
    options = parser.parse_args(arguments)
    try:
        _inspect(options)
    except ModuleNotFoundError as e:
        if (e.name or "").startswith("fused_penalty"):
            raise
        return _fail(f"{e.name} is not installed: {EXTRA}")
    except (OSError, ValueError, RuntimeError, MemoryError) as e:
        return _fail(str(e) or type(e).__name__)
    return 0


def _fail(message: str) -> int:
    from .checkpoint.names import printable

    print(f"error: {printable(message)}", file=sys.stderr)
    return 2


def _inspect(options: argparse.Namespace) -> None:
    import rich.progress
    from rich.console import Console

    from .checkpoint import report as reader
    from .checkpoint import view

    if options.plot:
        from .checkpoint import picture  # fails before the file is read if matplotlib is missing

        picture.check_target(options.plot)
    columns = (rich.progress.BarColumn(), rich.progress.DownloadColumn(), rich.progress.TransferSpeedColumn())
    terminal = Console(stderr=True)
    with rich.progress.Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        task = bar.add_task("", total=None)
        report = reader.inspect(options.file, lambda done, total: bar.update(task, advance=done, total=total))
    if options.sort != "file":
        report = report.sorted(options.sort)
    if options.json:
        print(json.dumps(report.as_dict(), indent=2, allow_nan=False))
    else:
        # not a terminal: do not wrap the table
        view.show(report, Console() if sys.stdout.isatty() else Console(width=1000))
    if options.plot:
        picture.plot(report, options.plot)


if __name__ == "__main__":
    sys.exit(main())

"""`python -m reliability`: tries every promise, prints the table and writes docs/reliability.md.

With counts (JSON) and names it tries those in this process and prints a line of JSON for each.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
from dataclasses import asdict
from typing import Any

from . import concurrency, faults, page, sizes, suites
from .promises import FULL, Counts, Found, Promise, in_a_process

PROMISES = (
    Promise("fork", "A forked child computes, whatever its parent was doing", concurrency.fork),
    Promise("threads", "Calls from many threads give the bits of one thread", concurrency.threads),
    Promise("bits", "The number of threads does not change a bit", concurrency.bits),
    Promise("shapes", "New shapes in every call do not fill memory", sizes.shapes),
    Promise("leaves", "A tree may have very many leaves", sizes.leaves),
    Promise("elements", "A leaf may have more than 2³¹ elements", sizes.elements),
    Promise("interrupts", "Ctrl-C raises, and leaves no weight half written", sizes.interrupts),
    Promise(
        "failing threads",
        "Where no thread starts, a call goes on without",
        faults.failing_threads,
    ),
    Promise("failing allocation", "Where memory ends, a call raises and writes nothing", faults.failing_allocation),
)
SUITES = (
    Promise("layouts", "Any layout of leaves, anchors, gradients and outputs is right", suites.layouts),
    Promise("misuse", "A wrong call raises, names argument and remedy, and writes nothing", suites.misuse),
    Promise("files", "A hostile or changing file is one line of error for `inspect`, and names are text", suites.files),
    Promise("sanitizers", "The native code is clean under the sanitizers", suites.sanitizers),
)
INNER = {p.name: p.prove for p in PROMISES} | {faults.PRELOADED: faults.preloaded}


def every() -> list[tuple[Promise, Found]]:
    found = []
    for promise in (*PROMISES, *SUITES):
        print(f"{promise.name} ...", flush=True)
        alone = promise in PROMISES
        found.append((promise, in_a_process([promise.name], FULL)[promise.name] if alone else promise.prove(FULL)))
    return found


def main(arguments: list[str]) -> int:
    if arguments:
        counts = Counts(**json.loads(arguments[0]))
        for name in arguments[1:]:
            result: dict[str, Any] = {name: asdict(INNER[name](counts))}
            print(json.dumps(result), flush=True)
        return 0
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from benchmarks.harness import machine

    described, rows = machine.describe(), every()
    page.show(rows)
    page.PAGE.write_text(page.render(described, rows, page.modes(), datetime.date.today()))
    return int(any(f.kept is False for _, f in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

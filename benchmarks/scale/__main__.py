"""What the penalty costs at scale: a model of a training step, and counts of launches and collectives.

    python -m benchmarks.scale            prints the tables
    python -m benchmarks.scale --write    puts them into docs/scale.md

The model computes from the inputs below, which are published figures, and from counts that `count.py` makes. No
time in it is a measurement.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "scale.md"
US = 1e-6


@dataclass(frozen=True)
class Input:
    name: str
    value: float
    text: str
    source: str


H100 = "[H100 datasheet](https://www.nvidia.com/en-us/data-center/h100/), SXM"
LLAMA = "[The Llama 3 Herd of Models](https://arxiv.org/abs/2407.21783)"
NCCL = "[NCCL 2.30, `src/graph/tuning.cc`](https://github.com/NVIDIA/nccl/blob/master/src/graph/tuning.cc), tree, LL"
KAPLAN = "[Kaplan et al.](https://arxiv.org/abs/2001.08361): forward and backward"
ZERO = "[ZeRO](https://arxiv.org/abs/1910.02054): mixed precision with Adam; decides which rows fit"
LAUNCH = (
    "[a study on CUDA 13](https://susun-blog.com/blog/pegainfer-3-cuda-graph): 4–6 µs; the lower end, kind to the naive"
)
INPUTS = {
    i.name: i
    for i in (
        Input("memory bandwidth", 3.35e12, "3.35 TB/s", H100),
        Input("memory", 80e9, "80 GB", H100),
        Input("peak, bf16 dense", 989e12, "989 TFLOP/s", H100),
        Input("utilisation (MFU)", 0.40, "40 %", f"{LLAMA}: 38–43 % on 8,192–16,384 GPUs"),
        Input("tokens a step", 16 * 2**20, "16 Mi", f"{LLAMA}: 16M tokens a batch at 405B"),
        Input("FLOP a parameter and token", 6, "6", KAPLAN),
        Input("bytes a parameter, training state", 16, "16 B", ZERO),
        Input("bytes a parameter, penalised", 4, "4 B", "float32 shards, as FSDP2 keeps them"),
        Input("devices a node", 8, "8", LLAMA),
        Input("link between nodes", 50e9, "50 GB/s", f"{LLAMA}: 400 Gb/s a GPU"),
        Input("all-reduce, base", 6.8 * US, "6.8 µs", NCCL),
        Input("all-reduce, a step in the node", 0.6 * US, "0.6 µs", NCCL),
        Input("all-reduce, a step between nodes", 5.0 * US, "5.0 µs", NCCL),
        Input("kernel launch", 4 * US, "4 µs", LAUNCH),
    )
}
PAYLOAD = 32 * 1024  # bytes of our all-reduce in torch (`torch.mesh.HEAD` rows of two float64)
DEVICES = (1, 8, 64, 512, 4096, 16384)


def of(name: str) -> float:
    return INPUTS[name].value


# Models: the shapes of Llama 3 (table 3 of the paper) and of Llama 3.2 1B, whose embedding is tied.


@dataclass(frozen=True)
class Model:
    name: str
    layers: int
    width: int
    kv: int
    hidden: int
    tied: bool = False
    vocabulary: int = 128256

    def leaves(self) -> list[int]:
        """Elements of each parameter."""
        w, kv, h = self.width, self.kv, self.hidden
        block = [w * w, w * kv, w * kv, w * w, w * h, w * h, h * w, w, w]
        ends = [self.vocabulary * w, w] + ([] if self.tied else [self.vocabulary * w])
        return block * self.layers + ends


MODELS = (
    Model("1B", 16, 2048, 512, 8192, tied=True),
    Model("8B", 32, 4096, 1024, 14336),
    Model("70B", 80, 8192, 1024, 28672),
    Model("405B", 126, 16384, 1024, 53248),
)


# The model of a step


def step_seconds(elements: int, devices: int) -> float:
    flop = of("FLOP a parameter and token") * elements * of("tokens a step")
    return flop / (devices * of("peak, bf16 dense") * of("utilisation (MFU)"))


def all_reduce_seconds(devices: int, payload: int) -> float:
    """NCCL's own estimate for a tree: up and down through the node and the tree of nodes. LL sends a flag with every
    word, so the payload counts twice."""
    if devices == 1:
        return 0.0
    here = min(devices, int(of("devices a node")))
    nodes = devices // here
    hops = (here - 1) * of("all-reduce, a step in the node") + math.log2(nodes) * of("all-reduce, a step between nodes")
    return of("all-reduce, base") + 2 * hops + 2 * 2 * payload / of("link between nodes")


@dataclass(frozen=True)
class Cost:
    """Of value and gradient, a step and device."""

    launches: int
    collectives: int
    seconds: float


def ours(leaves: Sequence[int], devices: int, counts: dict[str, Any]) -> Cost:
    """`add_grad_`: one launch that reads x and g and writes g, some operations on scalars, one all-reduce."""
    shard = sum(-(-n // devices) for n in leaves) * of("bytes a parameter, penalised")
    small = counts["all"] - counts["large"]
    move = max(of("kernel launch"), counts["passes"] / counts["leaves"] * shard / of("memory bandwidth"))
    wait = all_reduce_seconds(devices, PAYLOAD)
    return Cost(counts["all"], int(devices > 1), move + small * of("kernel launch") + wait)


def naive(leaves: Sequence[int], devices: int, counts: dict[str, Any], collectives: int) -> Cost:
    """Eager sums leaf by leaf and their backward; `collectives` all-reduces of two numbers each."""
    each, passes = counts["all"] / counts["leaves"], counts["passes"] / counts["leaves"]
    seconds = 0.0
    for n in leaves:
        shard = -(-n // devices) * of("bytes a parameter, penalised")
        seconds += max(each * of("kernel launch"), passes * shard / of("memory bandwidth"))
    collectives *= devices > 1
    return Cost(round(each * len(leaves)), collectives, seconds + collectives * all_reduce_seconds(devices, 16))


# Tables


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [" | ".join(head), "|".join(["---"] * len(head)), *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" if "---" not in line else f"|{line}|" for line in lines)


def digits(x: float) -> str:
    return f"{x:.3g}" if x < 1000 else f"{x:,.0f}"


def percent(x: float) -> str:
    return f"{100 * x:.2g} %" if x < 1 else f"{100 * x:,.0f} %"


def inputs_table() -> str:
    return table(("input", "value", "source"), [(i.name, i.text, i.source) for i in INPUTS.values()])


def model_table(counts: dict[str, Any]) -> str:
    rows = []
    for model in MODELS:
        leaves = model.leaves()
        for devices in DEVICES:
            if sum(leaves) * of("bytes a parameter, training state") > devices * of("memory"):
                continue
            step = step_seconds(sum(leaves), devices)
            ways = (
                ours(leaves, devices, counts["ours"]),
                naive(leaves, devices, counts["naive"], 1),
                naive(leaves, devices, counts["naive"], len(leaves)),
            )
            size = sum(leaves) / devices * of("bytes a parameter, penalised")
            cells = [f"{model.name}", f"{devices:,}", digits(size / 1e6), digits(step * 1e3)]
            cells += [digits(all_reduce_seconds(devices, PAYLOAD) / US)]
            cells += [cell for c in ways for cell in (digits(c.seconds * 1e3), percent(c.seconds / step))]
            rows.append(cells)
    head = (
        "model", "devices", "MB a device", "step, ms", "our all-reduce, µs", "ours, ms", "of the step",
        "naive, one all-reduce, ms", "of the step", "naive, an all-reduce a leaf, ms", "of the step",
    )  # fmt: skip
    return table(head, rows)


def launches_table(counts: dict[str, Any]) -> str:
    rows = []
    for model in MODELS:
        leaves = model.leaves()
        a, b = ours(leaves, 8, counts["ours"]), naive(leaves, 8, counts["naive"], len(leaves))
        large, passes = counts["ours"]["large"], {k: c["passes"] / c["leaves"] for k, c in counts.items()}
        rows.append(
            (
                model.name, digits(sum(leaves) / 1e9), f"{len(leaves):,}",
                f"{large} + {a.launches - large}", f"{a.collectives}", f"{passes['ours']:g}",
                f"{b.launches:,}", f"1 or {b.collectives:,}", f"{passes['naive']:.3g}",
            )
        )  # fmt: skip
    head = (
        "model", "parameters, 10⁹", "leaves", "ours: launches (large + scalar)", "all-reduces", "passes",
        "naive: launches", "all-reduces", "passes",
    )  # fmt: skip
    return table(head, rows)


def hlo_table(rows: Sequence[dict[str, Any]]) -> str:
    by = {(r["devices"], r["of"], r["version"]): r for r in rows}
    cells = []
    for devices, what in dict.fromkeys((r["devices"], r["of"]) for r in rows):
        pair = [by[devices, what, version] for version in ("ours", "naive")]
        shown = [str(r[k]) for r in pair for k in ("operations", "all_reduces", "all_gathers")]
        cells.append([str(devices), what, str(pair[0]["launches"]), *shown])
    head = (
        "devices", "of", "our calls", "ours: operations", "all-reduces", "all-gathers",
        "naive: operations", "all-reduces", "all-gathers",
    )  # fmt: skip
    return table(head, cells)


def count(*devices: int) -> dict[str, Any]:
    """What count.py prints, from a process of its own."""
    chosen = ["--devices", *map(str, devices)] if devices else []
    command = [sys.executable, "-m", "benchmarks.scale.count", *chosen]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=600, cwd=ROOT).stdout)


def tables(counted: dict[str, Any]) -> dict[str, str]:
    """By the name of their mark in docs/scale.md."""
    counts = counted["torch"]
    return {
        "inputs": inputs_table(),
        "model": model_table(counts),
        "launches": launches_table(counts),
        "hlo": hlo_table(counted["jax"]),
    }


def mark(name: str) -> str:
    return f"<!-- {name} table -->"


def main() -> None:
    found = tables(count())
    if "--write" not in sys.argv:
        print("\n\n".join(found.values()))
        return
    page = PAGE.read_text()
    for name, text in found.items():
        before, _, after = page.split(mark(name))
        page = f"{before}{mark(name)}\n{text}\n{mark(name)}{after}"
    PAGE.write_text(page)


if __name__ == "__main__":
    main()

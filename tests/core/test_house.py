"""The house: arrows run roof → framework → `_core` and never up, without a circle; files stay small; the table of
operations is the same in Python, in C++, in Triton's language and in the docs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from fused_penalty._core import steps
from fused_penalty._core.dtypes import BITS, TABLE
from fused_penalty._core.operations import Op, Role, op_of
from fused_penalty._core.steps import Step, StepRole
from tests.support.paths import ROOT

PACKAGE = ROOT / "python" / "fused_penalty"
FRAMEWORKS = ("jax", "torch")
# Who may import whom; the roof is every module beside the folders.
MAY = {
    "_core": {"_core"},
    "jax": {"jax", "_core"},
    "torch": {"torch", "_core"},
    "checkpoint": {"checkpoint", "torch", "_core"},
    "optax": {"optax", "jax", "_core"},
    "roof": {"roof", "checkpoint", "optax", "jax", "torch", "_core"},
}
NATIVE = ("_cpu", "_cuda", "_kernels")  # compiled, or of another folder: at the bottom


def name_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(f): f for f in PACKAGE.rglob("*.py")}


def room(module: str) -> str:
    first = module.split(".")[0]
    return first if first in MAY else "roof"


def imports(module: str, *, everywhere: bool) -> set[str]:
    """Modules of the package that this one imports: anywhere, or when it is imported itself."""
    file = MODULES[module]
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    tree = ast.parse(file.read_text())
    nodes = ast.walk(tree) if everywhere else iter(tree.body)
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                inner = ".".join([*base, alias.name])
                found.add(inner if inner in MODULES or alias.name in NATIVE else ".".join(base))
    return {m for m in found if m.split(".")[0] not in NATIVE} - {module}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_arrow_runs_up(module: str) -> None:
    mine = imports(module, everywhere=True)
    assert {m for m in mine if room(m) not in MAY[room(module)]} == set()


def test_arrows_are_seen() -> None:
    """The test of the test."""
    assert "_core.operations" in imports("jax.elastic_net", everywhere=True)
    assert "jax.verbs" in imports("jax", everywhere=False)
    assert "torch" in imports("regularizers", everywhere=True)


def test_no_circle() -> None:
    left = {m: imports(m, everywhere=False) for m in MODULES}
    # a package's face imports its rooms; a room that names its package means a module of it
    for module in left:
        parts = module.split(".")
        left[module] -= {".".join(parts[:k]) for k in range(len(parts))}
    while ready := {m for m, needs in left.items() if not needs & left.keys()}:
        left = {m: needs for m, needs in left.items() if m not in ready}
    assert left == {}


LIMIT = 300
# Not split yet; it may become shorter, not longer.
LONGER = {"tests/emulation/cuda_emul_fibers.h": 350}


@pytest.mark.parametrize("folder", ["python", "kernels", "csrc", "tests", "benchmarks"])
def test_files_are_small(folder: str) -> None:
    sources = (f for f in (ROOT / folder).rglob("*") if f.suffix in (".py", ".h", ".cc", ".cu"))
    lines = {str(f.relative_to(ROOT)): len(f.read_text().splitlines()) for f in sources}
    assert {name: n for name, n in lines.items() if n > LONGER.get(name, LIMIT)} == {}
    assert {name for name in LONGER.keys() & lines.keys() if lines[name] <= LIMIT} == set()  # a needless exception


def camel(op: Op | Step) -> str:
    return "".join(word.capitalize() for word in op.name.split("_"))


def test_the_twins_of_the_table() -> None:
    native = (ROOT / "kernels" / "operations.h").read_text()
    rows = re.findall(r"^  ROW\((\w+), (.+?), (\w+), (\w+)\)", native, re.MULTILINE)
    assert rows == [
        (camel(op), " | ".join(map(role, op.reads)), role(op.writes), "kStatsColumns" if op.counts else "kSumsColumns")
        for op in Op
    ]
    triton = (ROOT / "kernels" / "triton" / "elastic_net.py").read_text()
    found = re.findall(r"^(\w+) = tl\.constexpr\((\d+)\)", triton, re.MULTILINE)
    codes = {name: int(code) for name, code in found if name in Op.__members__}
    assert codes == {op.name: int(op) for op in Op if op.writes}


def test_the_twins_of_the_steps() -> None:
    """Codes, arrays, columns and coefficients of `_core/steps.py` are those of kernels/steps.h."""
    cpu = pytest.importorskip("fused_penalty._cpu", reason="the native module was not built", exc_type=ImportError)
    bits = {role: 1 << i for i, role in enumerate(StepRole)}
    rows = [(camel(step), sum(bits[role] for role in step.arrays)) for step in Step]
    assert cpu.steps() == rows
    assert [_snake(name) for name in cpu.step_columns()] == list(steps.COLUMNS)
    assert cpu.step_coefficients() == list(steps.COEFFICIENTS)
    native = (ROOT / "kernels" / "steps.h").read_text()  # the module may be older than the sources
    assert re.findall(r"^  ROW\((\w+), ", native, re.MULTILINE) == [name for name, _ in rows]


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().replace("non_finite", "nonfinite")


def role(found: Role | None) -> str:
    return "kNothing" if found is None else f"k{found.name.capitalize()}"


def test_the_twins_of_the_dtypes() -> None:
    native = (ROOT / "kernels" / "dtypes.h").read_text()
    rows = re.findall(r"^  ROW\((\w+), (\d), (\w+)\)", native, re.MULTILINE)
    assert rows == [(row.native, str(row.bytes), str(row.writable).lower()) for row in TABLE]
    assert f"kDTypeBits = {BITS};" in native


def test_the_module_was_built_from_these_tables() -> None:
    """An installed module that is older than the sources would read another layout of the chunks."""
    cpu = pytest.importorskip("fused_penalty._cpu", reason="the native module was not built", exc_type=ImportError)
    assert [row[0] for row in cpu.operations()] == [camel(op) for op in Op]
    assert [row[3] for row in cpu.operations()] == [len(op.columns) for op in Op]
    assert cpu.dtypes() == [(row.native, row.bytes, row.writable) for row in TABLE]


def test_an_unknown_operation_is_an_error() -> None:
    with pytest.raises(ValueError, match=rf"^op: there is no operation {len(Op)}\. Use one of 0 \(SUMS\), "):
        op_of(len(Op))


class Symbol:
    """What the coefficients are made of, written out."""

    def __init__(self, text: str, product: bool = True) -> None:
        self.text, self.product = text, product

    def __mul__(self, other: Symbol | float) -> Symbol:
        return Symbol(f"{self.text}·{other.text if isinstance(other, Symbol) else other}")

    def __rmul__(self, other: float) -> Symbol:
        return Symbol(f"{other}·{self.text}")

    def __radd__(self, other: float) -> Symbol:
        return Symbol(f"{other} + {self.text}", product=False)

    def __rtruediv__(self, other: float) -> Symbol:
        return Symbol(f"{other} / {self.text if self.product else f'({self.text})'}")


def row(op: Op) -> str:
    pair = op.coefficients(Symbol("l1"), Symbol("l2"), Symbol("step"))
    coefficients = ", ".join(c.text for c in pair if isinstance(c, Symbol))
    reads, writes = ", ".join(r.value for r in op.reads), op.writes.value if op.writes else "nothing"
    cells = (op.name.lower(), str(int(op)), reads, writes, op.formula, coefficients, ", ".join(op.columns))
    return "".join(f"| {cell} " if cell else "| " for cell in cells) + "|"


def test_the_docs_have_the_table() -> None:
    page = (ROOT / "docs" / "design.md").read_text()
    for op in Op:
        assert row(op) in page

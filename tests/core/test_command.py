"""The command line without a checkpoint: version, doctor, and what is said where something is missing."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fused_penalty as fp
from fused_penalty import doctor
from fused_penalty.__main__ import main
from fused_penalty._core.backends import BACKENDS
from tests.support.fresh import hiding, run_fresh

DOCTOR = "from fused_penalty.__main__ import main; print(main(['doctor']))"


def test_version(capsys: Any) -> None:
    version = importlib.metadata.version("fused-penalty")
    assert fp.__version__ == version
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"fused-penalty {version}\n"
    script = Path(sys.executable).with_name("fused-penalty")
    if script.exists():
        assert (
            subprocess.run([script, "--version"], capture_output=True, text=True).stdout == f"fused-penalty {version}\n"
        )


def test_doctor(capsys: Any) -> None:
    """All that a bug report needs, and nothing of the user's folders."""
    for name in ("jax", "torch"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for package in ("fused-penalty", "numpy", "jax", "torch"):
        assert f"{package} {importlib.metadata.version(package)}" in text
    assert str(fp.backends()) in text
    assert re.search(r"^CPU: \d+ cores, ", text, re.MULTILINE)
    assert re.search(r"^GPU: .*driver: ", text, re.MULTILINE)
    assert str(Path.home()) not in text


def test_doctor_without_frameworks_and_native_module() -> None:
    text = run_fresh(hiding("jax", "torch") + "\nfrom fused_penalty import doctor\n"
                     "import importlib.util; importlib.util.find_spec = lambda name: None\n" + DOCTOR)  # fmt: skip
    assert "to do: there is neither JAX nor PyTorch; install one: pip install 'fused-penalty[torch]'" in text
    assert text.endswith("\n0")
    text = run_fresh(hiding("fused_penalty._cpu") + DOCTOR)
    assert "to do: torch on CPUs runs the slow reference: its native module was not built; install from source" in text
    assert "no native module" in text


def test_doctor_finds_what_is_wrong(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    monkeypatch.setattr(doctor, "_with_torch", lambda row: 7.0 if row.name == "reference" else 1 / 0)
    monkeypatch.setattr(doctor, "Op", [])
    monkeypatch.setenv("FUSED_PENALTY_BACKEND", "cupy")
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "wrong: reference for torch gave 7.0 instead of 8\n" in text
    if next(row for row in BACKENDS if (row.name, row.framework) == ("cpu", "torch")).reason() is None:
        assert "wrong: cpu for torch failed: ZeroDivisionError: " in text
        assert "wrong: the native module was built from other sources than this Python code; install the" in text
    assert "wrong: FUSED_PENALTY_BACKEND=cupy cannot run: there is none of this name; unset it" in text
    assert "environment: FUSED_PENALTY_BACKEND=cupy" in text


def test_doctor_survives_a_module_that_does_not_fit(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def fail() -> None:
        raise AttributeError("module '_cpu' has no attribute 'ffi_handlers'")

    monkeypatch.setattr(doctor, "backends", fail)
    assert main(["doctor"]) == 1
    assert "wrong: the backends cannot be listed (AttributeError: module '_cpu' has no" in capsys.readouterr().out


def test_the_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "DRIVER", tmp_path / "version")
    assert doctor._driver() == "none of NVIDIA's"
    doctor.DRIVER.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n"
    )
    assert doctor._driver() == "NVIDIA 535.104.05"

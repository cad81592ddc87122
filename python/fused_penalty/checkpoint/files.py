"""What the user names -> the safetensors files that hold its leaves: one file, those of an index, or those in a folder.

Nothing of a file but the text of an index is read here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .._core.errors import bad
from .names import printable

ENDING = ".safetensors"
INDEX = ".index.json"


def files_of(path: Path) -> list[Path]:
    """The files of a checkpoint, in the order of their names. A path that is no folder and no JSON file is one itself.

    In a folder the index decides, if there is one: beside the shards there may be the same weights in another form.

    Raises:
      FileNotFoundError: The folder has no such file, or an index names one that is not there.
      ValueError: A folder has several indices, or a JSON file is no index of safetensors files.
    """
    if path.is_dir():
        return _of_folder(path)
    return _of_index(path) if path.suffix == ".json" and path.is_file() else [path]


def _of_folder(folder: Path) -> list[Path]:
    name = printable(folder)
    indices = sorted(folder.glob(f"*{ENDING}{INDEX}"))
    if len(indices) > 1:
        raise bad(
            ValueError, "file", f"{name} has {len(indices)} indices: {', '.join(printable(f.name) for f in indices)}",
            "Give one of them",
        )  # fmt: skip
    if indices:
        return _of_index(indices[0])
    found = sorted(f for f in folder.glob(f"*{ENDING}") if f.is_file())
    if not found:
        raise bad(FileNotFoundError, "file", f"the folder {name} has no {ENDING} file", "Give one that has")
    return found


def _of_index(index: Path) -> list[Path]:
    names = _weight_map(index)
    found = []
    for name in sorted(set(names.values())):
        if Path(name).name != name or name in ("", ".."):
            raise bad(
                ValueError, "file", f"{printable(index)} names {printable(name)!r}, which is not beside it",
                "Shards stand in the folder of their index; correct it",
            )  # fmt: skip
        if not (index.parent / name).exists():
            raise bad(
                FileNotFoundError, "file", f"{printable(index)} names {printable(name)}, which is not beside it",
                "Fetch the missing file, or give those files that you have",
            )  # fmt: skip
        found.append(index.parent / name)
    return found


def _weight_map(index: Path) -> dict[str, str]:
    try:
        found: Any = json.loads(index.read_bytes())
    except (ValueError, RecursionError):
        found = None
    names = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(n, str) for n in names.values()):
        raise bad(
            ValueError, "file", f"{printable(index)} is not the index of a sharded checkpoint (it has no weight_map)",
            f"Give a {ENDING} file, an index such as model{ENDING}{INDEX}, or their folder",
        )  # fmt: skip
    return names

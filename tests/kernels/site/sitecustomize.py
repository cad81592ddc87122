"""On PYTHONPATH: imports `fused_penalty._cpu` from the file that CPU_MODULE names, in child processes, too."""

import importlib.util
import os
import sys


class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name == "fused_penalty._cpu":
            return importlib.util.spec_from_file_location(name, os.environ["CPU_MODULE"])
        return None


sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]

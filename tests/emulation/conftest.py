"""Fixtures of tests/conftest.py hold here too."""

collect_ignore = ["h100_compile.py"]  # a program of its own, with another JAX platform

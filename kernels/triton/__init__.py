"""The Triton kernel. Imports triton alone: no framework, no device. `kernel.py` is the way in."""

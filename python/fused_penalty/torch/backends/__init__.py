"""The backends of PyTorch."""

"""The backends of JAX."""

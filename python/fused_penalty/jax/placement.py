"""Leaves that do not belong together: on several meshes or devices, or with sums still pending.

JAX refuses them, but its error names an internal operand, or only meshes. After a failure we inspect the leaves and
raise an error with the path of the offending one; successful calls pay nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax
from jax.sharding import NamedSharding

from .._core.errors import bad
from .params import Selection


@contextlib.contextmanager
def explained(s: Selection) -> Iterator[None]:
    """Turn an error about where the leaves lie into a ValueError that names argument and path."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as e:
        reason = _misplaced(s)
        if reason is None:
            raise
        raise reason from e


def _misplaced(s: Selection) -> Exception | None:
    named = [("params", path, x) for path, x in zip(s.paths, s.leaves, strict=True)]
    named += [("anchor", path, x) for path, x in zip(s.paths, s.anchors, strict=False)]
    first: tuple[str, str, str] | None = None
    for argument, path, x in named:
        unreduced = jax.typeof(x).sharding.spec.unreduced
        if unreduced:
            return bad(
                ValueError, argument, f"its sum over the mesh axes {', '.join(sorted(unreduced))} is still pending",
                "Finish it first, for example with jax.reshard to a spec without unreduced axes", path=path,
            )  # fmt: skip
        place = _place(x)
        if place is None:
            continue
        if first is None:
            first = argument, path, place
        elif place != first[2]:
            return bad(
                ValueError, argument, f"it lies on {place}, but {first[0]} at {first[1] or '<root>'!r} on {first[2]}",
                "Put all parameters on one mesh or one device, for example with jax.device_put", path=path,
            )  # fmt: skip
    return None


def _place(x: jax.Array) -> str | None:
    """What an array is bound to: a mesh or devices. None if JAX may still choose."""
    typed = jax.typeof(x).sharding.mesh
    if not isinstance(x, jax.core.Tracer):
        if not x.committed:
            return None
        if not isinstance(x.sharding, NamedSharding):
            return f"the device {', '.join(sorted(map(str, x.sharding.device_set)))}"
        ids = x.sharding.mesh.device_ids.ravel().tolist()
        return f"the mesh {dict(x.sharding.mesh.shape)} of the devices {ids}"
    return f"the mesh {dict(typed.shape)}" if typed.explicit_axes else None

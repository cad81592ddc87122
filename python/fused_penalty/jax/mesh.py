"""One launch per device on its own parts of the leaves, then one all-reduce of the sums. Knows no kernel, no calculus.

How a call is distributed depends on where its sharding is specified:

    automatic axes    XLA, when it partitions: `custom_partitioning`
    explicit axes     the types of the leaves: `shard_map`
    manual axes       the user's own `shard_map`: nothing to do, the call is local, as it would be in jnp

The echo is never reduced, so gradients do not wait for the sums.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Hashable, Sequence
from typing import Any, Protocol

import jax
from jax.experimental.custom_partitioning import ArrayMapping, SdyShardingRule, custom_partitioning
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from .shares import Shardings, Shares, shardings_of
from .versions import as_varying, reshard, varying

Arrays = Sequence[jax.Array]


class Local(Hashable, Protocol):
    """A launch on the parts that one device holds; hashable, so that it can key a cache.

    Tables (batch..., any, any) are whole on every device. `others` are lists of arrays like the leaves, which lie where
    the leaves lie. Totals are (batch..., any, any), reduced over the axes of the shares; ones are scalars, each
    device's own; the arrays that it makes are lists like the leaves, one after the other.
    """

    @property
    def writes(self) -> int: ...  # how many lists of arrays like the leaves

    @property
    def totals(self) -> int: ...  # how many

    def __call__(
        self, batch_rank: int, shares: Shares, tables: Arrays, leaves: Arrays, anchors: Arrays, /, *others: Arrays
    ) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...], tuple[jax.Array, ...]]: ...


def spread(local: Local, batch_rank: int, *operands: Arrays) -> Any:
    """(totals, ones, arrays) of the call on whole arrays: tables, leaves, anchors, others."""
    operands = tuple(map(tuple, operands))
    tables, leaves, *beside = operands
    mesh, axes = mesh_of([*leaves, *itertools.chain(*beside), *tables]), _variation(operands)
    if mesh.explicit_axes:
        return (_gathered if axes else _by_type)(local, batch_rank, mesh, *operands)
    if mesh.manual_axes:
        return local(batch_rank, Shares.alone(leaves), *_as_varying(operands, axes))
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]  # custom_partitioning needs the compiler
        return local(batch_rank, Shares.alone(leaves), *operands)
    return _partitioned(local, batch_rank, tuple(map(len, operands)))(*operands)


def mesh_of(arrays: Arrays) -> AbstractMesh:
    meshes = (jax.typeof(x).sharding.mesh for x in arrays)
    return next((mesh for mesh in meshes if not mesh.empty), jax.sharding.get_abstract_mesh())


def classes(leaves: Arrays, *beside: Arrays) -> tuple[int, ...]:
    """A number for each leaf: equal where the leaf and what is beside it, such as its anchor, vary over the same manual
    axes.

    Each class has a launch and an echo of its own. With one for all, the transpose of echo · x would all-reduce
    the whole gradient of every leaf that varies over fewer axes than the echo.
    """
    sets = [varying(x) for x in leaves]
    for arrays in filter(None, beside):
        sets = [s | varying(a) for s, a in zip(sets, arrays, strict=True)]
    number: dict[frozenset[str], int] = {}
    return tuple(number.setdefault(s, len(number)) for s in sets)


def _variation(tree: Any) -> frozenset[str]:
    """The manual axes over which any of the arrays varies."""
    return frozenset().union(*map(varying, jax.tree.leaves(tree)))


def _as_varying(tree: Any, axes: frozenset[str]) -> Any:
    def cast(x: jax.Array) -> jax.Array:
        missing = axes - varying(x)
        return as_varying(x, missing) if missing else x

    return jax.tree.map(cast, tree)


def _by_type(local: Local, batch_rank: int, mesh: AbstractMesh, *operands: Arrays) -> Any:
    """Explicit axes: the types of the leaves carry their specs; an anchor goes where its leaf is."""
    _, leaves, anchors, *_ = operands
    specs, anchor_specs = ([jax.typeof(x).sharding.spec for x in arrays] for arrays in (leaves, anchors))
    shardings = shardings_of(dict(mesh.shape), [x.shape for x in leaves], specs, anchor_specs, batch_rank)
    ins = _operand_specs(shardings, operands)

    def place(x: jax.Array, spec: PartitionSpec) -> jax.Array:
        return x if jax.typeof(x).sharding.mesh.empty else reshard(x, NamedSharding(mesh, spec))

    body = functools.partial(local, batch_rank, shardings.shares)
    arrays = tuple(map(shardings.result, shardings.leaves)) * local.writes
    outs = (shardings.result(),) * local.totals, PartitionSpec(), arrays
    call = jax.shard_map(body, mesh=mesh, in_specs=ins, out_specs=outs, check_vma=False)
    return call(*jax.tree.map(place, operands, ins))


def _gathered(local: Local, batch_rank: int, mesh: AbstractMesh, *operands: Arrays) -> Any:
    """Explicit axes inside a user's `shard_map` over other axes that checks what varies: ours cannot be nested in it,
    so the leaves are gathered over the explicit axes."""
    whole = jax.tree.map(lambda x: reshard(x, PartitionSpec()), operands)
    shares = Shares.alone(operands[1])
    totals, ones, arrays = local(batch_rank, shares, *_as_varying(whole, _variation(operands)))
    specs = (jax.typeof(x).sharding.spec for x in operands[1])
    return totals, ones, tuple(map(reshard, arrays, itertools.cycle(specs)))


def _operand_specs(shardings: Shardings, operands: Sequence[Arrays]) -> tuple[tuple[PartitionSpec, ...], ...]:
    tables, *others = operands
    at_leaves = (
        tuple(shardings.operand(x.shape, own) for x, own in zip(arrays, shardings.leaves, strict=False))
        for arrays in others
    )
    return tuple(shardings.operand(x.shape) for x in tables), *at_leaves


@functools.cache
def _partitioned(local: Local, batch_rank: int, sizes: tuple[int, ...]) -> Any:
    """Automatic axes: XLA gives the specs when it partitions. On one device the call is lowered as it is.

    `sizes`: how many tables, leaves, anchors and others there are.
    """

    @custom_partitioning
    @jax.jit  # holds the constants of the call, since custom_partitioning cannot
    def call(*operands: Arrays) -> Any:
        return local(batch_rank, Shares.alone(operands[1]), *operands)

    def partition(mesh: Any, operands: Any, results: Any) -> Any:
        (_, leaves, anchors, *_), (totals, ones, arrays) = operands, results
        # A sharding without a mesh has no spec: such a leaf is gathered.
        specs, anchor_specs = ([getattr(x.sharding, "spec", ()) for x in arrays] for arrays in (leaves, anchors))
        shardings = shardings_of(dict(mesh.shape), [x.shape for x in leaves], specs, anchor_specs, batch_rank)
        ins = _operand_specs(shardings, operands)
        outs = (
            tuple(shardings.result() for _ in totals),
            tuple(PartitionSpec() for _ in ones),
            tuple(shardings.result(own) for own, _ in zip(itertools.cycle(shardings.leaves), arrays, strict=False)),
        )
        place = functools.partial(NamedSharding, mesh)
        return (
            mesh,
            functools.partial(local, batch_rank, shardings.shares),
            jax.tree.map(place, outs),
            jax.tree.map(place, ins),
        )

    def rule(mesh: Any, operands: Sequence[Any], results: Sequence[Any]) -> SdyShardingRule:
        """Shardy's rule: the dimensions of a batch belong together, and those of a leaf, its anchor and its array."""
        whole: list[str] = []  # a factor for each dimension that is not sharded

        def factors(shape: Sequence[int], leaf: int | None) -> ArrayMapping:
            names = []
            for d, n in enumerate(shape):
                if d < batch_rank and n > 1:
                    names.append(f"batch{d}")
                elif d < batch_rank or leaf is None:
                    whole.append(f"whole{len(whole)}")
                    names.append(whole[-1])
                else:
                    names.append(f"leaf{leaf}_{d}")
            return ArrayMapping(*names)

        tables, *others = sizes
        leaves = others[0]
        scalars = len(results) - leaves * local.writes
        kinds: list[int | None] = [*[None] * tables, *itertools.chain(*map(range, others))]
        ins = tuple(factors(t.shape, k) for t, k in zip(operands, kinds, strict=True))
        kinds = [*[None] * scalars, *[*range(leaves)] * local.writes]
        outs = tuple(factors(t.shape, k) for t, k in zip(results, kinds, strict=False))
        summed = () if local.writes else tuple(dict.fromkeys(f for m in ins for f in m if f.startswith("leaf")))
        return SdyShardingRule(ins, outs, reduction_factors=summed, need_replication_factors=tuple(whole))

    call.def_partition(partition, sharding_rule=rule)
    return call

"""Threads, forks, and numbers of threads: the same bits from every thread, in every child, at every count."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from .promises import Counts, Found

Call = Callable[[], list[bytes]]


def _leaves() -> list[np.ndarray]:
    """Small ones, and one that is large enough for several threads."""
    random = np.random.default_rng(0)
    return [random.standard_normal(n, np.float32) for n in (1, 33, 4097, 70_000)]


def torch_calls() -> list[Call]:
    """Each makes a call on shared or own parameters and returns the bits of all it gives."""
    import torch

    import fused_penalty.torch as verbs

    shared = [torch.from_numpy(x) for x in _leaves()]

    def bits(*tensors: Any) -> list[bytes]:
        return [x.detach().numpy().tobytes() for x in tensors]

    def in_place(verb: Any) -> Call:
        def call() -> list[bytes]:
            # by NumPy: torch copies and fills with OpenMP, which hangs in a child of a parent that has used it
            mine = [torch.from_numpy(x.numpy().copy()) for x in shared]
            for x in mine:
                x.grad = torch.from_numpy(np.ones_like(x.numpy()))
            return bits(verb(mine, 0.1, 0.2), *mine, *(x.grad for x in mine))

        return call

    def gradients() -> list[bytes]:
        value, grads = verbs.penalty_and_grad(shared, 0.1, 0.2)
        return bits(value, *grads)

    return [
        lambda: bits(verbs.penalty(shared, 0.1, 0.2)),
        lambda: bits(*verbs.sums(shared)[:2]),
        lambda: bits(*verbs.stats(shared)[:5]),
        gradients,
        *map(in_place, (verbs.add_grad_, verbs.prox_, verbs.regularize_)),
    ]


def jax_calls() -> list[Call]:
    import jax

    import fused_penalty.jax as verbs

    shared = [jax.numpy.asarray(x) for x in _leaves()]
    penalty = jax.jit(jax.value_and_grad(lambda xs: verbs.penalty(xs, 0.1, 0.2)))

    def bits(tree: Any) -> list[bytes]:
        return [np.asarray(x).tobytes() for x in jax.tree.leaves(tree)]

    return [
        lambda: bits(penalty(shared)),
        lambda: bits(verbs.penalty_and_grad(shared, 0.1, 0.2)),
        lambda: bits(verbs.prox(shared, 0.1, 0.2, step=0.5)),
        lambda: bits(verbs.sums(shared)[:2]),
        lambda: bits(verbs.stats(shared)[:5]),
    ]


def threads(counts: Counts) -> Found:
    calls = torch_calls() + jax_calls()
    expected = [call() for call in calls]
    different, errors = [0] * counts.threads, []
    start = threading.Barrier(counts.threads)

    def work(k: int) -> None:
        try:
            start.wait()
            for i in range(counts.calls):
                chosen = (i + k) % len(calls)
                different[k] += calls[chosen]() != expected[chosen]
        except Exception as e:
            errors.append(repr(e))

    workers = [threading.Thread(target=work, args=(k,)) for k in range(counts.threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    figure = f"{counts.threads} threads × {counts.calls:,} mixed calls of PyTorch and JAX: {sum(different)} differ"
    return Found(f"{figure}, {len(errors)} errors {errors[:1] or ''}".strip(), not sum(different) and not errors)


def bits(counts: Counts) -> Found:
    import torch

    calls, numbers = torch_calls(), (1, 2, 3, 4, 8, 16)
    found = set()
    for n in numbers:
        torch.set_num_threads(n)
        found.update(tuple(b"".join(call()) for call in calls) for _ in range(3))
    return Found(f"{len(calls)} verbs, 3 times with each of {numbers} threads: {len(found)} result", len(found) == 1)


def fork(counts: Counts) -> Found:
    """os.fork after use, and while threads are inside a call; DataLoader workers."""
    calls = torch_calls()
    expected = [call() for call in calls]
    after = sum(_child_is_right(calls, expected) for _ in range(counts.rounds))
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            calls[3]()

    workers = [threading.Thread(target=busy) for _ in range(2)]
    for worker in workers:
        worker.start()
    inside = sum(_child_is_right(calls, expected) for _ in range(counts.rounds))
    stop.set()
    for worker in workers:
        worker.join()
    loaded = _loader(b"".join(calls[0]()), counts.rounds)
    kept = after == inside == counts.rounds and loaded
    return Found(
        f"{after} of {counts.rounds} children right after use, {inside} of {counts.rounds} while 2 threads are "
        f"inside; 2 DataLoader workers {'right' if loaded else 'WRONG'}",
        kept,
    )


def _child_is_right(calls: list[Call], expected: list[list[bytes]], seconds: float = 60) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's own, about forks of processes with threads: that is what is tried
        child = os.fork()
    if child == 0:
        try:
            os._exit(0 if [call() for call in calls] == expected else 1)
        finally:
            os._exit(2)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.001)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


def _loader(expected: bytes, rounds: int) -> bool:
    import torch

    call = torch_calls()[0]

    class Data(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return 4 * rounds

        def __getitem__(self, i: int) -> bool:
            return b"".join(call()) == expected

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader = torch.utils.data.DataLoader(Data(), num_workers=2, multiprocessing_context="fork", timeout=60)
        return all(bool(x) for x in loader)

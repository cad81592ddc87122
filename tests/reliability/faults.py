"""A machine that has no thread or no memory left."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .promises import MIB, STATM, Counts, Found, in_a_process

EVERY = "RELIABILITY_FAIL_EVERY"
PRELOADED = "failing threads, preloaded"
FAILING_PTHREAD_CREATE = f"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
static atomic_int created;
typedef int (*create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *x) {{
  const char *every = getenv("{EVERY}");
  if (every && atomic_fetch_add(&created, 1) % atoi(every) == atoi(every) - 1) return EAGAIN;
  return ((create)dlsym(RTLD_NEXT, "pthread_create"))(t, a, f, x);
}}
"""


def failing_threads(counts: Counts) -> Found:
    """Under a pthread_create of our own, which fails every k-th time."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not STATM.exists():
        return Found("needs Linux and a C compiler", None)
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "fail.c", Path(folder) / "fail.so"
        source.write_text(FAILING_PTHREAD_CREATE)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, capture_output=True)
        return in_a_process([PRELOADED], counts, LD_PRELOAD=str(library))[PRELOADED]


def preloaded(counts: Counts) -> Found:
    import torch

    from fused_penalty.torch import penalty_and_grad, prox_

    torch.set_num_threads(16)
    x = torch.linspace(-1, 1, 8_000_000)

    def step() -> tuple[float, bytes, bytes]:
        value, grads = penalty_and_grad([x], 0.1, 0.2)
        y = torch.from_numpy(x.numpy().copy())  # by NumPy: OpenMP ends the process where a thread does not start
        prox_([y], 0.1, 0.2)
        return float(value), grads[0].numpy().tobytes(), y.numpy().tobytes()

    expected, tries, right = step(), 0, 0
    for every in (1, 2, 3, 4, 5, 7):
        for _ in range(counts.rounds):
            os.environ[EVERY] = str(every)
            try:
                found = step()
            finally:
                del os.environ[EVERY]
            tries += 1
            right += found == expected
    return Found(f"every 1st, 2nd, ... 7th thread fails to start: {right} of {tries} rounds right", right == tries)


@contextmanager
def _no_more_memory_than(headroom: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(STATM.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + headroom, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def failing_allocation(counts: Counts) -> Found:
    """Less and less memory: each call is right or raises, and a call that raised has written nothing."""
    if not STATM.exists():
        return Found("needs Linux", None)
    import jax
    import torch

    import fused_penalty.jax as of_jax
    from fused_penalty.torch import penalty_and_grad, prox_

    torch.set_num_threads(1)  # the stacks of threads are another promise
    large = torch.ones(16 * MIB)
    many = torch.full((40_000, 2), 2.0)
    in_jax = jax.numpy.ones(16 * MIB)
    calls: list[tuple[Callable[[], Any], float]] = [
        (lambda: penalty_and_grad([large], 1.0)[0], large.numel()),
        (lambda: of_jax.penalty_and_grad([in_jax], 1.0)[0], in_jax.size),
    ]
    refused = done = wrong = 0
    _ = [float(call()) for call, _ in calls]
    for i in range(counts.rounds):
        leaves = list(many[: 20_000 + i].unbind())  # a plan of its own
        for call, expected in [*calls, (lambda leaves=leaves: prox_(leaves, 1.0), 4.0 * len(leaves))]:
            many.fill_(2.0)
            try:
                with _no_more_memory_than(i * MIB):
                    value = float(call())
                done += 1
                wrong += value != expected
            except (MemoryError, RuntimeError, ValueError):  # the last is JAX's, where it allocates results
                refused += 1
                wrong += bool((many != 2.0).any())
    wrong += sum(float(call()) != expected for call, expected in calls)
    figure = f"{refused} calls raised and wrote nothing, {done} had enough, {wrong} wrong; alive and right afterwards"
    return Found(figure, refused > 0 and not wrong)

"""Ever new shapes, very many leaves, very many elements."""

from __future__ import annotations

import random
import signal
import time

from .promises import MIB, Counts, Found, available, resident

GROWTH = 32 * MIB  # that 20,000 new shapes may cost


def shapes(counts: Counts) -> Found:
    """New shapes in every call; what the first tenth has filled (caches, allocators) may not grow on."""
    import torch

    from fused_penalty.torch import prox_

    choose = random.Random(0)
    data = torch.ones(20 * 4096)
    start = 0
    for i in range(counts.shapes):
        leaves, at = [], 0
        for _ in range(20):
            n = choose.randrange(1, 4096)
            leaves.append(data[at : at + n])
            at += n
        prox_(leaves, 1e-9)
        if i == counts.shapes // 10:
            start = resident()
    grown = resident() - start
    return Found(f"{counts.shapes:,} lists of 20 new shapes: {grown / MIB:+.0f} MiB", grown < GROWTH)


def leaves(counts: Counts) -> Found:
    import torch

    from fused_penalty.torch import penalty, prox_

    n = counts.leaves
    xs = list(torch.ones(n, 2).unbind())
    start = resident()
    values = [float(penalty(xs, 1.0, 1.0)), float(prox_(xs, 0.5))]
    right = values == [4 * n, n] and all(float(xs[i].sum()) == 1 for i in (0, n // 2, n - 1))
    figure = f"{n:,} leaves in one call of penalty and one of prox_: {'right' if right else 'WRONG'}"
    return Found(f"{figure}, {(resident() - start) / MIB:+.0f} MiB", right)


def elements(counts: Counts) -> Found:
    """More elements than 32 bits count, the last of them told apart."""
    n = counts.elements
    need = 3 * n
    if available() < need:
        return Found(f"needs {need / MIB:,.0f} MiB, {available() / MIB:,.0f} MiB are free", None)
    import jax
    import torch

    import fused_penalty.jax as of_jax
    from fused_penalty.torch import prox_, stats

    x = torch.full((n,), 0.5, dtype=torch.bfloat16)
    x[-1], x[n // 2] = -3.0, 0.0
    absolute, square = (n - 2) * 0.5 + 3.0, (n - 2) * 0.25 + 9.0
    found = [stats([x]), of_jax.stats([jax.numpy.from_dlpack(x)])]
    errors = [abs(float(s.abs[0]) / absolute - 1) for s in found] + [
        abs(float(s.square[0]) / square - 1) for s in found
    ]
    exact = all((float(s.max[0]), int(s.zeros[0]), int(s.nonfinite[0])) == (3.0, 1, 0) for s in found)
    errors.append(abs(float(prox_([x], 0.25)) / (0.25 * absolute) - 1))
    exact = exact and (float(x[0]), float(x[n // 2]), float(x[-2]), float(x[-1])) == (0.25, 0.0, 0.25, -2.75)
    figure = f"{n:,} bfloat16 in one leaf, PyTorch and JAX: sums {max(errors):.1e} off"
    return Found(f"{figure}, counts, maxima and ends {'exact' if exact else 'WRONG'}", exact and max(errors) < 1e-6)


def interrupts(counts: Counts) -> Found:
    """Ctrl-C at some moment of a stream of in-place steps: an exception, and no leaf half written."""
    import _thread
    import threading

    import torch

    from fused_penalty.torch import prox_

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
    x, caught, whole = torch.empty(4_000_000), 0, 0
    for i in range(counts.rounds):
        x.fill_(1e6)
        end = time.monotonic() + 10
        timer = threading.Timer(0.05 + 0.001 * (i % 20), _thread.interrupt_main)
        try:
            timer.start()
            while time.monotonic() < end:
                prox_([x], 1.0)
        except KeyboardInterrupt:
            caught += 1
        timer.join()
        low, high = torch.aminmax(x)
        whole += bool(low == high)
    figure = f"{caught} of {counts.rounds} interrupts raised KeyboardInterrupt, {whole} times the weights were whole"
    return Found(figure, caught == whole == counts.rounds)

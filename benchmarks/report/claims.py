"""What the project says about its speed, each as a ratio to a named peer measured in the same run."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.contenders.sizes import PAIRS
from benchmarks.harness.results import Key, Result
from benchmarks.models.cases import DTYPES
from benchmarks.report.sizes import scaling, share

Number = float | None
F32, BF16 = DTYPES
_READ = {"4MiB": 0.65, "16MiB": 0.75, "64MiB": 0.85, "256MiB": 0.9}
_IN_PLACE = {"16MiB": 0.6, "64MiB": 0.8, "256MiB": 0.9}
_SHARES = (
    ("ours sums", F32, _READ), ("ours sums", BF16, _READ), ("ours prox_", F32, _IN_PLACE),
    ("ours add_grad_", F32, _IN_PLACE),
)  # fmt: skip


@dataclass(frozen=True)
class Claim:
    """A row. Without `least` and `most` it only stands beside the row above."""

    text: str
    value: Number  # None where a case of it did not run
    unit: str = "x"
    least: Number = None
    most: Number = None
    timed: bool = True  # else a busy machine does not touch it

    @property
    def target(self) -> str:
        if self.least is not None:
            return f">= {self.least:g}{self.unit}"
        return "" if self.most is None else f"<= {self.most:g}{self.unit}"

    @property
    def measured(self) -> str:
        return "not run" if self.value is None else f"{self.value:.3g}{self.unit}"

    @property
    def verdict(self) -> str:
        """pass, miss, or nothing where there is nothing to judge."""
        if self.value is None or not self.target:
            return ""
        holds = self.value >= self.least if self.least is not None else self.value <= (self.most or 0)
        return "pass" if holds else "miss"


def claims(results: dict[Key, Result]) -> list[Claim]:
    def ms(verb: str, framework: str, name: str, model: str, dtype: str = F32) -> Number:
        found = results.get((verb, framework, name, model, dtype))
        return found.median_ms if found else None

    def ratio(verb: str, framework: str, above: str, below: str, model: str) -> Number:
        return _over(ms(verb, framework, above, model), ms(verb, framework, below, model))

    def temporary(kind: str) -> Number:
        found = results.get(("step", "jax", kind, "gpt2", F32))
        return found.notes["temporary_bytes"] / 2**20 if found and found.notes else None

    def narrower(framework: str, name: str) -> Number:
        return _over(ms("forward", framework, name, "gpt2"), ms("forward", framework, name, "gpt2", BF16))

    first = _over(ms("first forward", "jax", "ours jit", "many"), 1e3)
    return [
        Claim("torch forward, gpt2: faster than naive eager",
              ratio("forward", "torch", "naive eager", "ours", "gpt2"), least=5),
        Claim("torch forward, resnet50: faster than naive eager",
              ratio("forward", "torch", "naive eager", "ours", "resnet50"), least=2.5),
        Claim("torch forward, gpt2: faster than both _foreach_norms",
              ratio("forward", "torch", "_foreach_norm", "ours", "gpt2"), least=3),
        Claim("torch forward, gpt2: share of the read limit",
              ratio("forward", "torch", "read limit", "ours", "gpt2"), "", least=0.9),
        Claim("JAX forward, gpt2: faster than naive jit",
              ratio("forward", "jax", "naive jit", "ours jit", "gpt2"), least=1.2),
        Claim("JAX forward, resnet50: faster than naive jit",
              ratio("forward", "jax", "naive jit", "ours jit", "resnet50"), least=5),
        Claim("JAX forward, 2,000 leaves: first call", first, " s", most=2),
        Claim("JAX forward, 2,000 leaves: later calls faster than naive jit (BENCH=full)",
              ratio("forward", "jax", "naive jit", "ours jit", "many"), least=4),
        Claim("JAX donated SGD step, gpt2: over the step without a penalty",
              ratio("step", "jax", "ours", "no penalty", "gpt2"), most=1.6),
        Claim("  beside it: decay formula by hand", ratio("step", "jax", "decay by hand", "no penalty", "gpt2")),
        Claim("  beside it: naive", ratio("step", "jax", "naive", "no penalty", "gpt2")),
        Claim("JAX donated SGD step, gpt2: temporary memory", temporary("ours"), " MiB", most=1, timed=False),
        Claim("  beside it: naive", temporary("naive"), " MiB"),
        Claim("JAX eager value_and_grad, 300 leaves",
              ms("overhead", "jax", "ours eager value_and_grad", "few"), " ms", most=40),
        Claim("torch penalty without grad, one leaf of 1,000: a call",
              ms("overhead", "torch", "ours penalty", "single"), " ms", most=0.012),
        Claim("torch sums without grad, 148 leaves of 256: a call",
              ms("overhead", "torch", "ours sums", "some"), " ms", most=0.04),
        Claim("torch sums without grad, 2,000 leaves of 256: a call",
              ms("overhead", "torch", "ours sums", "many"), " ms", most=0.35),
        Claim("torch triton sums, 2,000 unchanged tensors: the host before the launch",
              ms("overhead", "torch", "triton host, same tensors", "many"), " ms", most=1),
        Claim("  beside it: new addresses", ms("overhead", "torch", "triton host, new addresses", "many"), " ms"),
        Claim("torch penalty_and_grad, gpt2: faster than naive forward + backward",
              ratio("gradient", "torch", "naive eager", "ours penalty_and_grad", "gpt2"), least=2.5),
        Claim("  fresh buffers alone, of our time",
              ratio("gradient", "torch", "fresh buffers", "ours penalty_and_grad", "gpt2"), ""),
        Claim("torch penalty_and_grad, resnet50: faster than naive forward + backward",
              ratio("gradient", "torch", "naive eager", "ours penalty_and_grad", "resnet50"), least=2),
        Claim("  fresh buffers alone, of our time",
              ratio("gradient", "torch", "fresh buffers", "ours penalty_and_grad", "resnet50"), ""),
        Claim("torch add_grad_, gpt2: faster than eager autograd of the naive penalty",
              ratio("inplace", "torch", "naive eager", "ours add_grad_", "gpt2"), least=10),
        Claim("torch add_grad_, gpt2: faster than the foreach form",
              ratio("inplace", "torch", "foreach add", "ours add_grad_", "gpt2"), least=4),
        Claim("torch add_grad_, gpt2: share of one g.add_(x)",
              ratio("inplace", "torch", "add limit", "ours add_grad_", "gpt2"), "", least=0.8),
        Claim("torch add_grad_, 2,000 leaves: faster than the foreach form",
              ratio("inplace", "torch", "foreach add", "ours add_grad_", "many"), least=6),
        Claim("torch prox_, gpt2: share of one in-place pass",
              ratio("inplace", "torch", "pass limit", "ours prox_", "gpt2"), "", least=0.8),
        Claim("torch regularize_, gpt2: share of one in-place pass",
              ratio("inplace", "torch", "pass limit", "ours regularize_", "gpt2"), "", least=0.8),
        Claim("torch clip_grad_norm_, gpt2: faster than torch.nn.utils' (foreach)",
              ratio("inplace", "torch", "torch clip_grad_norm_", "ours clip_grad_norm_", "gpt2"), least=2),
        Claim("torch clip_grad_norm_, 2,000 leaves: faster than torch.nn.utils' (foreach)",
              ratio("inplace", "torch", "torch clip_grad_norm_", "ours clip_grad_norm_", "many"), least=5),
        *(Claim(f"torch {kind} step with penalty, gpt2: over torch's fused one without",
                ratio("optimizer", "torch", f"{kind} ours", f"{kind} torch fused", "gpt2"), most=1.05)
          for kind in ("SGD", "momentum", "AdamW")),
        Claim("torch AdamW step with penalty, gpt2: over torch's foreach one without",
              ratio("optimizer", "torch", "AdamW ours", "AdamW torch foreach", "gpt2"), most=0.35),
        Claim("torch AdamW step with penalty, 2,000 leaves: faster than torch's fused one without",
              ratio("optimizer", "torch", "AdamW torch fused", "AdamW ours", "many"), least=8),
        Claim("  the whole call", ms("optimizer", "torch", "AdamW ours", "many"), " ms", most=1.2),
        *(Claim(f"JAX donated {kind} step with penalty in one call, gpt2: over optax's without",
                ratio("optimizer", "jax", f"{kind} ours", f"{kind} optax", "gpt2"), most=1.05)
          for kind in ("SGD", "AdamW")),
        Claim("JAX donated SGD step with penalty in one call, 2,000 leaves: first call",
              _over(ms("first optimizer", "jax", "SGD ours", "many"), 1e3), " s", most=1.5),
        Claim("  beside it: optax's without", _over(ms("first optimizer", "jax", "SGD optax", "many"), 1e3), " s"),
        Claim("  later calls", ms("optimizer", "jax", "SGD ours", "many"), " ms", most=2),
        Claim("  beside it: optax's without", ms("optimizer", "jax", "SGD optax", "many"), " ms"),
        *(Claim(f"torch {name}, one leaf of {size} in {dtype}, all threads: share of {PAIRS[name]}",
                share(results, name, "all threads", size, dtype), "", least=least)
          for name, dtype, bounds in _SHARES for size, least in bounds.items()),
        Claim("torch sums, one leaf of 4 MiB: all threads over one", scaling(results, "ours sums", "4MiB", F32),
              least=1.4),
        Claim("torch forward, gpt2: bfloat16 over our float32, elements/s", narrower("torch", "ours"), least=1.5),
        Claim("JAX forward, gpt2: bfloat16 over our float32, elements/s", narrower("jax", "ours jit"), least=1.5),
        *(Claim(f"relative error on every tree, {dtype}", _worst(results, dtype), "", most=1e-6, timed=False)
          for dtype in DTYPES),
    ]  # fmt: skip


def _over(a: Number, b: Number) -> Number:
    return None if a is None or b is None else a / b


def _worst(results: dict[Key, Result], dtype: str) -> Number:
    ours = (r for r in results.values() if r.dtype == dtype and r.name.startswith("ours"))
    return max((r.notes["relative_error"] for r in ours if "relative_error" in r.notes), default=None)

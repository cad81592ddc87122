"""The step that `SGD`, `Adam` and `AdamW` share: all parameter groups in one launch per device and kind of step."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..._core.errors import bad
from ..._core.norms import check_max_norm
from ..._core.steps import Penalty, Step, StepRole, check_penalty
from ..._core.strengths import check_flag
from ..calculus import scale as scaled
from ..group_strengths import GroupStrengths
from ..norms import global_norm
from ..origins import Origins, key_of
from ..params import Selection
from ..scalars import admit, as_double, is_tensor
from ..steps import Columns, matrix, proximal_columns, run_steps
from ..strengths import is_step, requested
from ..types import Anchor, Mask, Strength
from .bank import Bank
from .roster import Roster

PEAKS = ("peak_lr", "initial_lr", "max_lr")  # entries of a group: ours, every scheduler's, OneCycleLR's
_grad, _layout = operator.attrgetter("grad"), operator.attrgetter("layout")


@dataclass(frozen=True)
class Gradients:
    """Those of all parameters, and which of them there are: the others' parameters do not move."""

    tensors: list[Tensor | None]
    moves: list[bool]
    all: bool

    @property
    def present(self) -> list[Tensor]:
        return [g for g in self.tensors if g is not None]


class Found(NamedTuple):
    """Of the last step: what `run_steps` returns, the strengths of all parameters, the norm before clipping, and the
    dtype of results."""

    totals: Tensor
    l1: Tensor
    l2: Tensor
    norm: Tensor | None
    dtype: torch.dtype

    def penalty(self) -> Tensor:
        value = scaled(self.l1, self.totals[:, 0]).sum() + scaled(self.l2, self.totals[:, 1]).sum()
        return value.to(self.dtype)


class Summary(NamedTuple):
    """What the last step found, all in the same pass: detached 0-d tensors, not read on the host.

    Attributes:
      penalty: The penalty of the parameters before the step, where the loss was taken.
      grad_norm: The 2-norm of the gradients as the step was given them (unscaled, not clipped).
      step_norm: The 2-norm of the change of the parameters.
      zeros: How many elements x - anchor the step leaves at zero.
      nonfinite: How many elements of the gradients are inf or NaN.
    """

    penalty: Tensor
    grad_norm: Tensor
    step_norm: Tensor
    zeros: Tensor
    nonfinite: Tensor


class Penalized(Optimizer):
    """A torch.optim optimizer with the penalty in its step. A subclass says which kind of step each group makes, which
    arrays its state has, and its coefficients."""

    _step_supports_amp_scaling = True  # GradScaler leaves `grad_scale` and `found_inf` to the step

    _penalty: Penalty
    _strengths: GroupStrengths

    def _init_penalty(
        self,
        l1: Strength,
        l2: Strength,
        penalty: str,
        mask: Mask | None,
        anchor: Anchor | None,
        max_grad_norm: float | Tensor | None,
        decouple_lr: bool,
        backend: str | None,
        model: nn.Module | None,
    ) -> None:
        self._penalty = check_penalty(penalty)
        for g in self.param_groups:
            if g.get("differentiable"):
                raise bad(
                    ValueError, "differentiable", "a step in place has no derivative",
                    "Use torch.optim's optimizer and put fused_penalty.torch.penalty into the loss",
                )  # fmt: skip
        self._mask, self._backend, self._origins = mask, requested(backend), Origins(model)
        self._decouple_lr = check_flag("decouple_lr", decouple_lr)
        self._max_grad_norm = (
            None if max_grad_norm is None else check_max_norm(max_grad_norm, is_tensor, "max_grad_norm", admit=admit)
        )
        self._anchor = list(anchor) if isinstance(anchor, Iterator) else anchor
        self._strengths = GroupStrengths(self, l1, l2, required=False)
        self._strengths.write()
        self._keep_peaks()
        self._roster: Roster | None = None
        self._bank: Bank | None = None
        self._found: Found | None = None
        self._look()

    # What a subclass has.

    def _kind(self, group: Mapping[str, Any]) -> Step:
        raise NotImplementedError

    def _state_of(self, group: Mapping[str, Any]) -> Mapping[StepRole, str]:
        raise NotImplementedError

    def _begin(
        self, roster: Roster, bank: Bank, gradients: Gradients, made: Sequence[bool], ok: Tensor | None
    ) -> Columns:
        """Count the step and give the coefficients other than the penalty's, and "step_length". `made`: whose state is
        new; `ok`: 1 where the step is made, 0 where GradScaler found an overflow."""
        raise NotImplementedError

    # What the user sees.

    @property
    def penalty(self) -> Tensor | None:
        """The penalty at the last step, of the parameters before it: a detached scalar, None before the first step."""
        return None if self._found is None else self._found.penalty()

    @property
    def summary(self) -> Summary | None:
        """What the last step found; None before the first step."""
        if self._found is None:
            return None
        found, dtype = self._found, self._found.dtype
        rest = found.totals[:, 2:].sum(0)
        norm = rest[0].sqrt() if found.norm is None else found.norm
        return Summary(found.penalty(), norm.to(dtype), rest[1].sqrt().to(dtype), *rest[2:].to(torch.int64))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, *, max_grad_norm: float | Tensor | None = None) -> Any:
        """Make one step.

        Args:
          closure: Evaluates the model and returns the loss, as in torch.optim.
          max_grad_norm: Clip the gradients by their global 2-norm as `clip_grad_norm_` does, for this step instead of
            the constructor's. One launch finds the norm; the step itself scales, and `.grad` stays as it is.

        Returns:
          What the closure returns, else None.

        Raises:
          TypeError, ValueError: As in `fused_penalty.torch.prox_`, or a gradient is sparse. Nothing has been written.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        limit = self._max_grad_norm
        if max_grad_norm is not None:
            limit = check_max_norm(max_grad_norm, is_tensor, "max_grad_norm", admit=admit)
        self._make_step(limit)
        return loss

    def _look(self) -> Roster:
        if self._roster is None or self._roster.key != key_of(self) or self._roster.shards is not None:
            self._strengths.write()
            self._keep_peaks()
            self._roster = Roster.of(self, self._origins, self._strengths, self._mask, self._anchor)
        return self._roster

    def _make_step(self, max_grad_norm: float | Tensor | None) -> None:
        if torch.compiler.is_compiling():
            from .compiled import make_step

            return make_step(self, max_grad_norm)
        roster = self._look()
        if not roster.params:
            return
        s = roster.with_strengths(self._strengths)
        grads = list(map(_grad, roster.params))
        moves = [g is not None for g in grads]
        gradients = Gradients(grads, moves, all(moves))
        check_gradients(gradients)
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None and found_inf.device.type == "cpu" and found_inf > 0:
            return
        ok = None if found_inf is None else (found_inf <= 0).to(torch.float64)
        bank = self._bank_of(roster)
        made = bank.fill(moves, all_move=gradients.all)
        columns = self._begin(roster, bank, gradients, made, ok)
        l1, l2 = roster.strengths(s, 0), roster.strengths(s, 1)
        length = columns.pop("step_length")
        columns |= self._of_the_penalty(length / self._peak(roster) if self._decouple_lr else length, l1, l2)
        norm = None
        columns["scale"] = self._scale(roster)
        if max_grad_norm is not None and any(moves):
            norm = global_norm(gradients.present, backend=self._backend).to(l1)
            if (grad_scale := getattr(self, "grad_scale", None)) is not None:
                norm = norm / grad_scale.to(norm)
            factor = torch.clamp(as_double(max_grad_norm, norm.device) / (norm + 1e-6), max=1.0)
            columns["scale"] = columns["scale"] * factor
        if ok is not None:
            columns["skip"] = (1 - ok).to(l1.device).expand_as(l1)
        totals = self._launch(roster, s, bank, gradients, columns)
        moved = roster.params if gradients.all else [p for p, m in zip(roster.params, moves, strict=True) if m]
        torch.autograd.graph.increment_version(moved)
        self._found = Found(totals, l1, l2, norm, s.dtype)

    def _keep_peaks(self) -> None:
        """With decouple_lr each group remembers the learning rate that it came with, as its entry `peak_lr`."""
        for g in self.param_groups if self._decouple_lr else ():
            g.setdefault("peak_lr", g["lr"].clone() if isinstance(g["lr"], Tensor) else g["lr"])

    def _peak(self, roster: Roster) -> Tensor:
        """The largest learning rate of each parameter: that of its group at first, or a scheduler's entry."""
        entries = (roster.each([g.get(name, 0.0) for g in self.param_groups]) for name in PEAKS)
        return functools.reduce(torch.maximum, entries)

    def _bank_of(self, roster: Roster) -> Bank:
        names = [self._state_of(g) for g in self.param_groups]
        if self._bank is None or not self._bank.is_current(self.state, roster, names):
            self._bank = Bank(self.state, roster, names)
        return self._bank

    def _of_the_penalty(self, length: Tensor, l1: Tensor, l2: Tensor) -> Columns:
        if self._penalty == "grad":
            good = torch.where(is_step(l1, l2, length), 1.0, torch.nan)
            return {"l1": l1 * good, "l2": 2 * l2 * good}
        columns = proximal_columns(length, l1, l2)
        if self._penalty == "prox":
            columns["metric"] = torch.ones_like(l1)
        return columns

    def _scale(self, roster: Roster) -> Tensor:
        signs = roster.each([-1.0 if g.get("maximize") else 1.0 for g in self.param_groups])
        grad_scale = getattr(self, "grad_scale", None)
        return signs if grad_scale is None else signs / grad_scale.to(signs)

    def _launch(self, roster: Roster, s: Selection, bank: Bank, gradients: Gradients, columns: Columns) -> Tensor:
        """The totals (n, 6) float64 in the order of the parameters."""
        arrays = {StepRole.GRADIENT: gradients.tensors, **bank.arrays(gradients.moves, all_move=gradients.all)}
        shards = roster.shards
        if shards is not None:
            shards.agree()
            arrays = {role: shards.local(values) for role, values in arrays.items()}
        parts = roster.parts(tuple(map(self._kind, self.param_groups)))
        totals = run_steps(parts, roster.leaves, roster.anchors, arrays, matrix(columns), self._backend)
        return totals if shards is None else shards.all_reduce_steps(totals)

    # Copies. torch's own __getstate__ leaves everything else out.

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_penalty", "_mask", "_anchor", "_backend", "_strengths", "_origins", "_max_grad_norm", "_decouple_lr")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in kept}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Also called by load_state_dict, whose state may be that of torch's optimizer: strengths that it lacks are
        kept."""
        loads = "_strengths" not in state
        if loads:
            self._strengths.before_load()
        super().__setstate__(state)
        self._roster, self._bank, self._found = None, None, None
        if loads:
            self._strengths.after_load()


def check_gradients(gradients: Gradients) -> None:
    """Raise for a sparse gradient, by the position of its parameter."""
    if set(map(_layout, gradients.present)) <= {torch.strided}:
        return
    for i, g in enumerate(gradients.tensors):
        if g is not None and g.layout is not torch.strided:
            raise bad(
                TypeError, "params", f"its gradient is sparse ({g.layout})",
                "Use Embedding(sparse=False), or torch.optim.SparseAdam for this parameter", path=str(i),
            )  # fmt: skip

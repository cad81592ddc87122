"""What the callbacks of trainers share: the arguments of `attach`, kept until a trainer has its optimizers, and the
figures that are logged."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.optim import Optimizer

from .attached import Attached
from .hooks import attach
from .types import Anchor, Mask, Metric, Mode, Strength


class TrainerPenalty:
    """The penalty of a training that has not begun yet.

    Attributes:
      handles: What `attach` returned for each of the trainer's optimizers; those of the last training after its end.
    """

    def __init__(
        self,
        l1: Strength = 0.0,
        l2: Strength = 0.0,
        *,
        mode: Mode = "grad",
        metric: Metric = "auto",
        weight_decay: Strength | None = None,
        mask: Mask | None = None,
        anchor: Anchor | None = None,
        backend: str | None = None,
    ) -> None:
        self.handles: list[Attached] = []
        self._mode = mode

        def of(optimizer: Optimizer, model: nn.Module) -> Attached:
            return attach(
                optimizer, l1, l2, mode=mode, metric=metric, weight_decay=weight_decay, mask=mask, anchor=anchor,
                model=model, backend=backend,
            )  # fmt: skip

        self._attach = of

    def begin(self, optimizers: Iterable[Optimizer], model: nn.Module) -> None:
        """Attach to the optimizers; the model names their parameters."""
        self.end()  # a training that was interrupted did not come to its end
        self.handles = []
        for optimizer in optimizers:
            self.handles.append(self._attach(optimizer, model))

    def end(self) -> None:
        """Take the penalty out of the optimizers, which may be trained again."""
        for handle in self.handles:
            handle.remove()

    def figures(self) -> dict[str, Tensor]:
        """The penalty at the last step and what the parameters that it counts hold now, for each optimizer: scalars on
        the parameters' device."""
        found = {}
        for k, handle in enumerate(self.handles):
            prefix = "penalty" if len(self.handles) == 1 else f"penalty/{k}"
            now = handle.stats()
            if handle.penalty is not None:
                found[f"{prefix}/value"] = handle.penalty
            found[f"{prefix}/l1_norm"] = now.abs.sum()
            found[f"{prefix}/l2_norm"] = now.square.sum().sqrt()
            found[f"{prefix}/zeros"] = now.zeros.sum() / sum(now.size)
        return found

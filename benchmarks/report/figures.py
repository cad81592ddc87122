"""What the pictures share: colours, axes, and how a figure ends."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

OURS, PEER, LIMIT = "#1b7f5c", "#a9b4c2", "#c0392b"


def plain(axis: Axes) -> None:
    """Small ticks, and no frame where nothing is read off."""
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def finish(figure: plt.Figure, file: Path, title: str, machine: str) -> Path:
    """Title, machine, file."""
    figure.suptitle(f"{title}\n{machine}", fontsize=11)
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    plt.close(figure)
    return file

"""What torch.compile is told about our functions.

Telling it imports torch._dynamo, which takes seconds, so it is not done with `import fused_penalty.torch`. While Dynamo
traces, it executes import statements for real: `select` has one of this module, which so is read when something is
first compiled, and before what it marks is called.
"""

from __future__ import annotations

import torch

from .._core.module_rules import innermost, spared
from .._core.paths import first_matches
from . import calculus, strengths

# Calls that stay whole in the graph: what they hold (autograd Functions, custom ops) brings its own derivatives.
for _whole in (calculus.scale, calculus.gradients, calculus.differentiable_sums):
    torch.compiler.allow_in_graph(_whole)

# Their arguments are static. Dynamo would warn of the cache in fnmatch, and guard every backend's state.
for _constant in (first_matches, innermost, spared, strengths.requested):
    torch.compiler.assume_constant_result(_constant)

"""Which tests run again under Triton's interpreter, and which do not, and why.

The interpreter is slow, so it runs what depends on the kernel, its launcher and their joints with torch: values of
every verb and dtype, edge cases, anchors, layouts, writes in place, frozen leaves, strengths, bits; and each
transformation of torch once. The lengths of leaves are those around the edges of the kernel's walk (`edges.lengths`);
the random trees of test_properties.py and the random lists of test_layouts.py are fewer.

What is left out runs in the ordinary process, on the other backends. Its code is the same for each of them:
parameters are collected and arguments checked before a backend is called.
"""

from __future__ import annotations

import itertools

FILES = (
    "tests/core/test_strengths.py",
    "tests/kernels/test_golden.py",
    "tests/torch_only/test_clip.py",
    "tests/torch_only/test_devices.py",
    "tests/torch_only/test_held.py",
    "tests/torch_only/test_inplace.py",
    "tests/torch_only/test_layouts.py",
    "tests/torch_only/test_params.py",
    "tests/torch_only/test_strengths.py",
    "tests/torch_only/test_transforms.py",
    "tests/torch_only/test_vmap.py",
    "tests/triton/test_interpreted.py",
    "tests/triton/test_interpreted_steps.py",
    "tests/verbs/test_accumulation.py",
    "tests/verbs/test_float8.py",
    "tests/verbs/test_norms.py",
    "tests/verbs/test_properties.py",
    "tests/verbs/test_prox.py",
    "tests/verbs/test_stats.py",
    "tests/verbs/test_values.py",
)

REFUSED = "it is refused before a backend is called"
COLLECTED = "parameters are collected before a backend is called"
LARGE = "millions of elements or hundreds of leaves; chunks, slots and programs are many in smaller tests, too"
DIFFERENCES = "hundreds of launches for a derivative by differences; test_func has each kind once, by the formula"
COMPILED = "torch.compile sees a custom op, never a backend; test_compile_fullgraph[triton-module] runs"
ROUNDED = "the interpreter does not round bfloat16 as hardware does, nor store its subnormal numbers"
SCALED = "the coefficient is made before a backend is called; one that is less than 1 runs"
MAPPED = (
    "vmap makes rows into leaves before a backend is called; float32 runs, with and without an output and an anchor"
)


def _compiled() -> list[str]:
    forms = ("list", "generator", "pairs", "mapping", "loss", "tensor_strength")
    return [f"tests/torch_only/test_transforms.py::test_compile_fullgraph[triton-{form}]" for form in forms]


def _mapped() -> list[str]:
    test = "tests/torch_only/test_vmap.py::test_vmap_of_what_has_no_derivative"
    twice = ("strength of a row", "anchored")
    narrow = ("stats", "penalty_and_grad", "anchored stats", *twice)
    return [*(f"{test}[triton-dtype1-{name}]" for name in narrow), *(f"{test}[triton-dtype0-{name}]" for name in twice)]


def _scaled() -> list[str]:
    test = "tests/torch_only/test_clip.py::test_equals_torch_in_float64_on_every_edge_case"
    cases = itertools.product(("float16", "bfloat16", "float32", "float64"), ("4.0", "inf"), ("1", "2", "inf"))
    return [f"{test}[torch-triton-{'-'.join(case)}]" for case in cases]


def _rounded() -> list[str]:
    test = "tests/torch_only/test_clip.py::test_the_scaling_is_a_multiplication_to_the_bit"
    return [f"{test}[torch-triton-bfloat16-{max_norm}]" for max_norm in ("7500.0", "30000.0", "0.0", "1e-36")]


# A file, a test of a file above, or one set of its parameters: why it does not run again.
LEFT_OUT = {
    "tests/core/test_bad_input.py": REFUSED,
    "tests/core/test_regularizers.py": COLLECTED,
    "tests/core/test_rules.py": "rules become numbers before a backend is called",
    "tests/torch_only/test_clip.py::test_compiled": COMPILED,
    **dict.fromkeys(_scaled(), SCALED),
    **dict.fromkeys(_rounded(), ROUNDED),
    "tests/torch_only/test_inplace_refused.py": REFUSED,
    "tests/torch_only/test_strengths.py::test_refused": REFUSED,
    "tests/torch_only/test_params.py::test_module_counts_one_memory_once_and_no_buffers": COLLECTED,
    "tests/torch_only/test_params.py::test_a_view_of_the_same_elements_counts_once": COLLECTED,
    "tests/torch_only/test_params.py::test_gaps_are_compared_too": COLLECTED,
    "tests/torch_only/test_params.py::test_every_form_of_params_gives_the_same": COLLECTED,
    "tests/torch_only/test_params.py::test_prefix_trees_of_names": COLLECTED,
    "tests/torch_only/test_inplace.py::test_compiled": COMPILED,
    "tests/torch_only/test_transforms.py::test_compile_of_penalty_and_grad_and_of_func": COMPILED,
    **dict.fromkeys(_compiled(), COMPILED),
    "tests/torch_only/test_transforms.py::test_gradcheck": DIFFERENCES,
    "tests/torch_only/test_vmap.py::test_vmap_refuses_a_write_that_has_no_row_of_its_own": REFUSED,
    "tests/torch_only/test_vmap.py::test_a_write_to_what_a_derivative_follows_is_refused": REFUSED,
    "tests/torch_only/test_vmap.py::test_functionalize_refuses_a_write": REFUSED,
    "tests/torch_only/test_vmap.py::test_a_compiled_write_to_the_result_of_an_operation_is_refused": REFUSED,
    **dict.fromkeys(_mapped(), MAPPED),
    "tests/triton/test_compiled.py": "it compiles the kernel, without the interpreter",
    "tests/triton/test_compiled_steps.py": "it compiles the kernel, without the interpreter",
    "tests/triton/test_suite.py": "it starts the interpreter, or needs no kernel",
    "tests/verbs/test_norms.py::test_other_orders_are_refused": REFUSED,
    "tests/verbs/test_norms.py::test_what_is_no_number_is_refused": REFUSED,
    "tests/verbs/test_values.py::test_many_leaves_of_one_value": LARGE,
    "tests/verbs/test_values.py::test_real_model_shapes": LARGE,
}

# The Python module _cuda, after module.cmake.
fused_penalty_module(_cuda fused_penalty_cuda module_cuda.cc jax_cuda.cc jax_step_cuda.cc step_cuda.cc)

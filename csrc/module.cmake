# The Python module _cpu: the root builds it for the package, tests/kernels under sanitizers.
set(FUSED_PENALTY_CSRC_DIR ${CMAKE_CURRENT_LIST_DIR})
pybind11_add_module(_cpu
  ${FUSED_PENALTY_CSRC_DIR}/module_cpu.cc
  ${FUSED_PENALTY_CSRC_DIR}/jax_cpu.cc
  ${FUSED_PENALTY_CSRC_DIR}/jax_step_cpu.cc
  ${FUSED_PENALTY_CSRC_DIR}/step_arrays.cc
  ${FUSED_PENALTY_CSRC_DIR}/step_cpu.cc
  ${FUSED_PENALTY_CSRC_DIR}/tensors.cc)
target_include_directories(_cpu SYSTEM PRIVATE
  ${FUSED_PENALTY_CSRC_DIR}/../third_party/xla ${FUSED_PENALTY_CSRC_DIR}/../third_party/dlpack)
target_link_libraries(_cpu PRIVATE fused_penalty_cpu_steps)
target_compile_options(_cpu PRIVATE -Wall -Wextra)

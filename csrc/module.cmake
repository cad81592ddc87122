# The Python module _cpu: the root builds it for the package, tests/kernels under sanitizers.
set(FUSED_PENALTY_CSRC_DIR ${CMAKE_CURRENT_LIST_DIR})

# A module of these sources in csrc/, and of those that every module has, around a library of kernels.
function(fused_penalty_module name kernels)
  list(TRANSFORM ARGN PREPEND ${FUSED_PENALTY_CSRC_DIR}/)
  pybind11_add_module(${name} ${ARGN} ${FUSED_PENALTY_CSRC_DIR}/step_arrays.cc ${FUSED_PENALTY_CSRC_DIR}/tensors.cc)
  target_include_directories(${name} SYSTEM PRIVATE
    ${FUSED_PENALTY_CSRC_DIR}/../third_party/xla ${FUSED_PENALTY_CSRC_DIR}/../third_party/dlpack)
  target_link_libraries(${name} PRIVATE ${kernels})
  target_compile_options(${name} PRIVATE -Wall -Wextra)
endfunction()

fused_penalty_module(_cpu fused_penalty_cpu_steps module_cpu.cc jax_cpu.cc jax_step_cpu.cc step_cpu.cc)

# The Python module _cuda.
pybind11_add_module(_cuda
  ${CMAKE_CURRENT_LIST_DIR}/module_cuda.cc
  ${CMAKE_CURRENT_LIST_DIR}/jax_cuda.cc
  ${CMAKE_CURRENT_LIST_DIR}/jax_step_cuda.cc
  ${CMAKE_CURRENT_LIST_DIR}/step_arrays.cc
  ${CMAKE_CURRENT_LIST_DIR}/step_cuda.cc
  ${CMAKE_CURRENT_LIST_DIR}/tensors.cc)
target_include_directories(_cuda SYSTEM PRIVATE
  ${CMAKE_CURRENT_LIST_DIR}/../third_party/xla ${CMAKE_CURRENT_LIST_DIR}/../third_party/dlpack)
target_link_libraries(_cuda PRIVATE fused_penalty_cuda)
target_compile_options(_cuda PRIVATE -Wall -Wextra)

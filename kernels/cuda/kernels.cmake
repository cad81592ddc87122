# The CUDA kernels as a static library with the runtime linked in, so that a machine without CUDA can import it.
add_library(fused_penalty_cuda STATIC
  ${CMAKE_CURRENT_LIST_DIR}/launch.cu ${CMAKE_CURRENT_LIST_DIR}/step_launch.cu)
set_target_properties(fused_penalty_cuda PROPERTIES CUDA_STANDARD 20 CUDA_STANDARD_REQUIRED ON CUDA_RUNTIME_LIBRARY Static)
# No contraction but where the source says fma: every architecture and the emulator round alike.
target_compile_options(fused_penalty_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:--fmad=false --expt-relaxed-constexpr>)
target_link_libraries(fused_penalty_cuda PUBLIC CUDA::cudart_static)

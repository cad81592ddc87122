# The CPU kernels as a static library; tests/kernels builds the same list under sanitizers.
set(FUSED_PENALTY_CPU_DIR ${CMAKE_CURRENT_LIST_DIR})
add_library(fused_penalty_cpu STATIC
  ${FUSED_PENALTY_CPU_DIR}/isa.cc
  ${FUSED_PENALTY_CPU_DIR}/launch.cc
  ${FUSED_PENALTY_CPU_DIR}/step_launch.cc
  ${FUSED_PENALTY_CPU_DIR}/step_portable.cc
  ${FUSED_PENALTY_CPU_DIR}/walk_portable.cc)

# No contraction to FMA: every instruction set gives the same bits. No -ffast-math: NaN and inf count,
# and linking with it would set flush-to-zero for the whole process. GCC 12 takes the undefined
# operands inside its own AVX-512 intrinsics for uninitialised variables (its bug 105593).
target_compile_options(fused_penalty_cpu PRIVATE
  -O3 -ffp-contract=off -Wall -Wextra $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>
  $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized>)
target_link_libraries(fused_penalty_cpu PUBLIC Threads::Threads)

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  target_sources(fused_penalty_cpu PRIVATE
    ${FUSED_PENALTY_CPU_DIR}/step_avx2.cc
    ${FUSED_PENALTY_CPU_DIR}/step_avx512.cc
    ${FUSED_PENALTY_CPU_DIR}/walk_avx2.cc
    ${FUSED_PENALTY_CPU_DIR}/walk_avx512.cc)
  set_source_files_properties(
    ${FUSED_PENALTY_CPU_DIR}/step_avx2.cc ${FUSED_PENALTY_CPU_DIR}/walk_avx2.cc PROPERTIES COMPILE_OPTIONS -march=x86-64-v3)
  set_source_files_properties(
    ${FUSED_PENALTY_CPU_DIR}/step_avx512.cc ${FUSED_PENALTY_CPU_DIR}/walk_avx512.cc PROPERTIES COMPILE_OPTIONS -march=x86-64-v4)
endif()

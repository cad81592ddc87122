# The CPU kernels as static libraries, operations and steps; tests/kernels builds the same lists under sanitizers.
set(FUSED_PENALTY_CPU_DIR ${CMAKE_CURRENT_LIST_DIR})
add_library(fused_penalty_cpu STATIC
  ${FUSED_PENALTY_CPU_DIR}/isa.cc
  ${FUSED_PENALTY_CPU_DIR}/launch.cc
  ${FUSED_PENALTY_CPU_DIR}/pool.cc
  ${FUSED_PENALTY_CPU_DIR}/walk_portable.cc)
add_library(fused_penalty_cpu_steps STATIC EXCLUDE_FROM_ALL
  ${FUSED_PENALTY_CPU_DIR}/step_isa.cc
  ${FUSED_PENALTY_CPU_DIR}/step_launch.cc
  ${FUSED_PENALTY_CPU_DIR}/step_portable.cc)
target_link_libraries(fused_penalty_cpu PUBLIC Threads::Threads)
target_link_libraries(fused_penalty_cpu_steps PUBLIC fused_penalty_cpu)

# No contraction to FMA: every instruction set gives the same bits. No -ffast-math: NaN and inf count,
# and linking with it would set flush-to-zero for the whole process. GCC 12 takes the undefined
# operands inside its own AVX-512 intrinsics for uninitialised variables (its bug 105593).
foreach(library fused_penalty_cpu fused_penalty_cpu_steps)
  target_compile_options(${library} PRIVATE
    -ffp-contract=off -Wall -Wextra
    $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized> $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized>)
endforeach()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  foreach(isa avx2:x86-64-v3 avx512:x86-64-v4)
    string(REPLACE ":" ";" pair ${isa})
    list(GET pair 0 name)
    list(GET pair 1 level)
    target_sources(fused_penalty_cpu PRIVATE ${FUSED_PENALTY_CPU_DIR}/walk_${name}.cc)
    target_sources(fused_penalty_cpu_steps PRIVATE ${FUSED_PENALTY_CPU_DIR}/step_${name}.cc)
    set_source_files_properties(
      ${FUSED_PENALTY_CPU_DIR}/walk_${name}.cc ${FUSED_PENALTY_CPU_DIR}/step_${name}.cc
      PROPERTIES COMPILE_OPTIONS -march=${level})
  endforeach()
endif()

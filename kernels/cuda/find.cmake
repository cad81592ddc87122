# Sets FUSED_PENALTY_NVCC to a compiler that builds the CUDA kernels here, or says why there is none. Nothing is enabled
# before that is known: a failing enable_language(CUDA) cannot be caught, and would take the CPU module down with it.
set(FUSED_PENALTY_NVCC "")

function(fused_penalty_without_cuda level why)
  if(FUSED_PENALTY_CUDA STREQUAL "ON")
    message(FATAL_ERROR "FUSED_PENALTY_CUDA=ON, but ${why}")
  endif()
  message(${level} "The CUDA module is left out: ${why}")
endfunction()

if(CMAKE_CUDA_COMPILER)
  set(nvcc ${CMAKE_CUDA_COMPILER})
elseif(DEFINED ENV{CUDACXX})
  set(nvcc $ENV{CUDACXX})
else()
  unset(nvcc)
  find_program(nvcc nvcc HINTS ENV CUDAToolkit_ROOT ENV CUDA_PATH ENV CUDA_HOME PATH_SUFFIXES bin
    NO_CACHE NO_CMAKE_SYSTEM_PATH)  # what PATH and these variables name, and nothing else
endif()
if(NOT nvcc)
  fused_penalty_without_cuda(STATUS "no CUDA compiler (nvcc) was found")
  return()
endif()

# 12.1 is the first that passes 32 KB of arguments to a kernel.
execute_process(COMMAND ${nvcc} --version RESULT_VARIABLE status OUTPUT_VARIABLE version ERROR_VARIABLE version)
if(NOT status EQUAL 0)
  fused_penalty_without_cuda(WARNING "${nvcc} --version fails (${status}): ${version}")
  return()
elseif(version MATCHES "release ([0-9.]+)" AND CMAKE_MATCH_1 VERSION_LESS 12.1)
  fused_penalty_without_cuda(WARNING "${nvcc} is release ${CMAKE_MATCH_1}; 12.1 or newer is needed")
  return()
endif()

# A small project of its own shows whether this CMake, this nvcc and this host compiler work together. It is built once,
# and again when one of them changes.
set(key ${nvcc} ${version} ${CMAKE_COMMAND} ${CMAKE_CXX_COMPILER} ${CMAKE_CUDA_HOST_COMPILER} ${CMAKE_CUDA_FLAGS}
  ${FUSED_PENALTY_CUDA_ARCHS})
string(SHA256 key "${key}")
if(NOT FUSED_PENALTY_CUDA_PROBED STREQUAL key)
  message(STATUS "Trying ${nvcc}")
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/cuda-probe)
  file(REMOVE_RECURSE ${folder})
  string(REPLACE ";" "\\;" archs "${FUSED_PENALTY_CUDA_ARCHS}")
  set(options -DCMAKE_CUDA_COMPILER=${nvcc} -DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER} -DCMAKE_BUILD_TYPE=Release
    -DCMAKE_CUDA_ARCHITECTURES=${archs} -DCMAKE_MAKE_PROGRAM=${CMAKE_MAKE_PROGRAM})
  foreach(name CMAKE_TOOLCHAIN_FILE CMAKE_CUDA_HOST_COMPILER CMAKE_CUDA_FLAGS CUDAToolkit_ROOT)
    if(${name})
      list(APPEND options "-D${name}=${${name}}")
    endif()
  endforeach()
  foreach(step "-S;${CMAKE_CURRENT_LIST_DIR}/probe;-B;${folder};-G;${CMAKE_GENERATOR};${options}" "--build;${folder}")
    execute_process(COMMAND ${CMAKE_COMMAND} ${step} RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
    if(NOT status EQUAL 0)
      fused_penalty_without_cuda(WARNING "CMake ${CMAKE_VERSION} cannot build with ${nvcc}:\n${output}")
      return()
    endif()
  endforeach()
  set(FUSED_PENALTY_CUDA_PROBED "${key}" CACHE INTERNAL "what the CUDA kernels can be built with")
endif()
set(FUSED_PENALTY_NVCC ${nvcc})

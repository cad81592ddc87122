# What kernels/*/find.cmake share: how a module is tried, and what is said and kept where it is left out.

# `name` is CPU or CUDA. `why` is one line, for the package; more is for whoever reads the build's output.
function(fused_penalty_leave_out name level why)
  if(FUSED_PENALTY_${name} STREQUAL "ON")
    message(FATAL_ERROR "FUSED_PENALTY_${name}=ON, but ${why}${ARGN}")
  endif()
  message(${level} "The ${name} module is left out: ${why}${ARGN}")
  fused_penalty_keep_reason(${name} "${why}")
endfunction()

# The property holds the entries of _left_out.py.
function(fused_penalty_keep_reason name why)
  string(TOLOWER ${name} key)
  string(REGEX REPLACE "[\\\"\r\n]+" "/" line "${why}")  # the paths of Windows, in a Python string
  set_property(GLOBAL APPEND_STRING PROPERTY FUSED_PENALTY_REASONS "\n    \"${key}\": \"${line}\",")
endfunction()

# Sets `output` to what CMake says when it cannot configure or build the small project beside find.cmake, empty where it
# can. What fails inside our own project (enable_language, an old compiler) could not be caught, and would take the
# install down with it. A success is remembered until something of `key` changes, or the compiler: then CMake forgets all.
function(fused_penalty_try name output key)
  list(APPEND key ${CMAKE_COMMAND} ${CMAKE_TOOLCHAIN_FILE} ${CMAKE_CXX_FLAGS} $ENV{CXX} $ENV{CXXFLAGS})
  string(SHA256 key "${key}")
  set(${output} "" PARENT_SCOPE)
  if(FUSED_PENALTY_${name}_PROBED STREQUAL key)
    return()
  endif()
  message(STATUS "Trying whether the ${name} module can be built")
  string(TOLOWER ${name} folder)
  set(build ${CMAKE_CURRENT_BINARY_DIR}/${folder}-probe)
  file(REMOVE_RECURSE ${build})
  set(options ${ARGN} -DCMAKE_BUILD_TYPE=Release)
  foreach(option CMAKE_MAKE_PROGRAM CMAKE_TOOLCHAIN_FILE CMAKE_CXX_COMPILER CMAKE_CXX_FLAGS CMAKE_OSX_ARCHITECTURES
      CMAKE_OSX_DEPLOYMENT_TARGET CMAKE_OSX_SYSROOT CMAKE_SYSTEM_NAME CMAKE_SYSTEM_PROCESSOR)
    if(${option} AND (CMAKE_CROSSCOMPILING OR NOT option MATCHES "SYSTEM"))
      string(REPLACE ";" "\\;" value "${${option}}")
      list(APPEND options "-D${option}=${value}")
    endif()
  endforeach()
  set(generator -G ${CMAKE_GENERATOR})
  if(CMAKE_GENERATOR_PLATFORM)
    list(APPEND generator -A ${CMAKE_GENERATOR_PLATFORM})
  endif()
  if(CMAKE_GENERATOR_TOOLSET)
    list(APPEND generator -T ${CMAKE_GENERATOR_TOOLSET})
  endif()
  set(said "")
  foreach(step "-S;${CMAKE_CURRENT_LIST_DIR}/probe;-B;${build};${generator};${options}"
      "--build;${build};--config;Release")
    execute_process(COMMAND ${CMAKE_COMMAND} ${step} RESULT_VARIABLE status OUTPUT_VARIABLE text ERROR_VARIABLE text)
    string(APPEND said "${text}")
    if(NOT status EQUAL 0)
      set(${output} "${said}" PARENT_SCOPE)
      return()
    endif()
  endforeach()
  set(FUSED_PENALTY_${name}_PROBED "${key}" CACHE INTERNAL "what the ${name} module can be built with")
endfunction()

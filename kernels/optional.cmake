# What is said and kept where a native module is left out.

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

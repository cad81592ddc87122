// The XLA FFI handler of the CUDA backend.
#pragma once

#include "xla/ffi/api/c_api.h"

extern "C" XLA_FFI_Error* FusedPenaltyCuda(XLA_FFI_CallFrame*);

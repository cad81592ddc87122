// The XLA FFI handler of the CPU backend.
#pragma once

#include "xla/ffi/api/c_api.h"

extern "C" XLA_FFI_Error* FusedPenaltyCpu(XLA_FFI_CallFrame*);

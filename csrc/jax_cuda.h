// The XLA FFI handlers of the CUDA backend.
#pragma once

#include "xla/ffi/api/c_api.h"

extern "C" {
XLA_FFI_Error* FusedPenaltySumsCuda(XLA_FFI_CallFrame*);
XLA_FFI_Error* FusedPenaltyGradientCuda(XLA_FFI_CallFrame*);
XLA_FFI_Error* FusedPenaltyProxCuda(XLA_FFI_CallFrame*);
XLA_FFI_Error* FusedPenaltyStatsCuda(XLA_FFI_CallFrame*);
}

// The XLA FFI handlers of the CPU backend.
#pragma once

#include "xla/ffi/api/c_api.h"

extern "C" {
XLA_FFI_Error* FusedPenaltySumsCpu(XLA_FFI_CallFrame*);
XLA_FFI_Error* FusedPenaltyGradientCpu(XLA_FFI_CallFrame*);
XLA_FFI_Error* FusedPenaltyProxCpu(XLA_FFI_CallFrame*);
XLA_FFI_Error* FusedPenaltyStatsCpu(XLA_FFI_CallFrame*);
}

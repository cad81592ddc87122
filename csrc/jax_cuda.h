// The XLA FFI handlers of the CUDA backend: of an operation, and of an optimizer's step; and the stage before each,
// which loads its kernel.
#pragma once

#include "xla/ffi/api/c_api.h"

extern "C" XLA_FFI_Error* FusedPenaltyCuda(XLA_FFI_CallFrame*);
extern "C" XLA_FFI_Error* FusedPenaltyCudaInitialize(XLA_FFI_CallFrame*);
extern "C" XLA_FFI_Error* FusedPenaltyStepCuda(XLA_FFI_CallFrame*);
extern "C" XLA_FFI_Error* FusedPenaltyStepCudaInitialize(XLA_FFI_CallFrame*);

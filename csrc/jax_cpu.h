// The XLA FFI handlers of the CPU backend: of an operation, and of an optimizer's step.
#pragma once

#include "xla/ffi/api/c_api.h"

extern "C" XLA_FFI_Error* FusedPenaltyCpu(XLA_FFI_CallFrame*);
extern "C" XLA_FFI_Error* FusedPenaltyStepCpu(XLA_FFI_CallFrame*);

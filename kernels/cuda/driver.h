// The part of the CUDA driver that a launch needs, declared here: building takes no CUDA header and no toolkit, and
// libcuda.so.1 is opened when it is first asked for. 12.1 (R530) is the oldest driver that passes 32 KB of arguments to
// a kernel; it has cuLibraryLoadData, so an image is loaded once for all devices and contexts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>

namespace fused_penalty::cuda {

using Context = struct ContextTag*;  // opaque, as the driver gives them
using Library = struct LibraryTag*;
using Kernel = struct KernelTag*;  // goes where the driver says CUfunction, too: it takes either
using Function = struct FunctionTag*;
using Stream = struct StreamTag*;  // null: the default stream
using Address = uint64_t;          // in a device's memory

// name, arguments; all return 0 or an error.
#define FUSED_PENALTY_DRIVER(ENTRY)                                                                                   \
  ENTRY(cuDriverGetVersion, int*)                                                                                     \
  ENTRY(cuInit, unsigned)                                                                                             \
  ENTRY(cuGetErrorName, int, const char**)                                                                            \
  ENTRY(cuGetErrorString, int, const char**)                                                                          \
  ENTRY(cuDeviceGetCount, int*)                                                                                       \
  ENTRY(cuDeviceGet, int*, int)                                                                                       \
  ENTRY(cuDeviceGetAttribute, int*, int, int)                                                                         \
  ENTRY(cuDevicePrimaryCtxRetain, Context*, int)                                                                      \
  ENTRY(cuCtxGetCurrent, Context*)                                                                                    \
  ENTRY(cuCtxSetCurrent, Context)                                                                                     \
  ENTRY(cuCtxGetDevice, int*)                                                                                         \
  ENTRY(cuStreamIsCapturing, Stream, int*)                                                                            \
  ENTRY(cuLibraryLoadData, Library*, const void*, int*, void**, unsigned, int*, void**, unsigned)                     \
  ENTRY(cuLibraryGetKernel, Kernel*, Library, const char*)                                                            \
  ENTRY(cuKernelGetFunction, Function*, Kernel)                                                                       \
  ENTRY(cuOccupancyMaxActiveBlocksPerMultiprocessor, int*, Kernel, int, size_t)                                       \
  ENTRY(cuMemsetD32Async, Address, unsigned, size_t, Stream)                                                          \
  ENTRY(cuLaunchKernel, Kernel, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Stream, void**, \
        void**)

enum Attribute { kMultiprocessors = 16, kComputeMajor = 75, kComputeMinor = 76 };  // of a device

struct Driver {
#define FUSED_PENALTY_ENTRY(name, ...) int (*name)(__VA_ARGS__);
  FUSED_PENALTY_DRIVER(FUSED_PENALTY_ENTRY)
#undef FUSED_PENALTY_ENTRY
  int version;  // 12010: CUDA 12.1
};

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// There is no driver or no device here; any other Error is of one that is here.
struct Absent : Error {
  using Error::Error;
};
struct OutOfMemory : std::bad_alloc {
  explicit OutOfMemory(std::string words) : words(std::move(words)) {}
  const char* what() const noexcept override { return words.c_str(); }
  std::string words;
};

// Opened and initialised; throws Absent, or Error where it is too old.
const Driver& driver();

// Throws what the driver says of a status other than 0; `what`: which call, and of what.
void check(int status, const std::string& what);

// Makes the primary context of a device the thread's current one where it has none, as in a thread that has called
// nothing of CUDA yet; else the caller has set the device. Returns the current one.
Context current_context(int device);

}  // namespace fused_penalty::cuda

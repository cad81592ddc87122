#include "driver.h"

#include <dlfcn.h>

namespace fused_penalty::cuda {
namespace {

constexpr int kOldest = 12010;
constexpr int kOutOfMemory = 2, kNoDevice = 100;

std::string version_name(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

Driver opened() {
  void* const library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) throw Absent(std::string("no NVIDIA driver: ") + dlerror());
  const auto find = [library](auto& entry, const char* name) {
    entry = reinterpret_cast<std::decay_t<decltype(entry)>>(dlsym(library, name));
    if (!entry) throw Error(std::string("the NVIDIA driver has no ") + name);
  };
  Driver found{};
  find(found.cuDriverGetVersion, "cuDriverGetVersion");
  if (const int status = found.cuDriverGetVersion(&found.version))
    throw Error("cuDriverGetVersion fails: " + std::to_string(status));
  if (found.version < kOldest)
    throw Error("the NVIDIA driver is of CUDA " + version_name(found.version) + "; " + version_name(kOldest) +
                " (R530) or newer is needed");
#define FUSED_PENALTY_ENTRY(name, ...) find(found.name, #name);
  FUSED_PENALTY_DRIVER(FUSED_PENALTY_ENTRY)
#undef FUSED_PENALTY_ENTRY
  return found;
}

const Driver& table() {
  static const Driver found = opened();
  return found;
}

}  // namespace

void check(int status, const std::string& what) {
  if (!status) return;
  const char *name = nullptr, *words = nullptr;
  table().cuGetErrorName(status, &name);
  table().cuGetErrorString(status, &words);
  const std::string message =
      what + ": " + (words ? words : "unknown error") + " (" + (name ? name : std::to_string(status)) + ")";
  if (status == kOutOfMemory) throw OutOfMemory(message);
  if (status == kNoDevice) throw Absent("no device: " + message);
  throw Error(message);
}

const Driver& driver() {
  static const bool initialised = (check(table().cuInit(0), "cuInit"), true);
  static_cast<void>(initialised);
  return table();
}

Context current_context(int device) {
  const Driver& d = driver();
  Context context = nullptr;
  check(d.cuCtxGetCurrent(&context), "cuCtxGetCurrent");
  if (!context) {
    int handle = 0;
    check(d.cuDeviceGet(&handle, device), "cuDeviceGet");
    check(d.cuDevicePrimaryCtxRetain(&context, handle), "cuDevicePrimaryCtxRetain");
    check(d.cuCtxSetCurrent(context), "cuCtxSetCurrent");
  }
  return context;
}

}  // namespace fused_penalty::cuda

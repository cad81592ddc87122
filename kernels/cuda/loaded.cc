#include "loaded.h"

#include <map>
#include <mutex>
#include <utility>

#include "arguments.h"
#include "images.h"

namespace fused_penalty::cuda {
namespace {

int attribute(Attribute which, int device) {
  int value = 0;
  check(driver().cuDeviceGetAttribute(&value, which, device), "cuDeviceGetAttribute");
  return value;
}

int capability_of(int device) { return 10 * attribute(kComputeMajor, device) + attribute(kComputeMinor, device); }

void refuse_capture(const std::string& kernel, Stream stream) {
  int capturing = 0;
  check(driver().cuStreamIsCapturing(stream, &capturing), "cuStreamIsCapturing");
  if (capturing)
    throw Error(kernel +
                " is not loaded yet, and nothing can be loaded while its stream is captured: call once before");
}

// One image in the driver, for all contexts.
Kernel read_image(const std::string& kernel, const Image& image) {
  static std::map<const Image*, Kernel> known;
  if (const auto found = known.find(&image); found != known.end()) return found->second;
  const std::string what = (image.kind == kPtx ? " of the PTX of " : " of the machine code of ") + kernel;
  Library library = nullptr;
  Kernel made = nullptr;
  check(driver().cuLibraryLoadData(&library, image.data(), nullptr, nullptr, 0, nullptr, nullptr, 0),
        "cuLibraryLoadData" + what);
  check(driver().cuLibraryGetKernel(&made, library, kernel.c_str()), "cuLibraryGetKernel" + what);
  return known[&image] = made;
}

}  // namespace

Loaded load(const std::string& kernel, int device, Stream stream) {
  static std::mutex mutex;
  static std::map<std::pair<Context, std::string>, Loaded> known;
  const Context context = current_context(device);
  const std::lock_guard lock(mutex);
  if (const auto found = known.find({context, kernel}); found != known.end()) return found->second;
  refuse_capture(kernel, stream);
  int here = 0;
  check(driver().cuCtxGetDevice(&here), "cuCtxGetDevice");
  const int capability = capability_of(here);
  const Image* const image = best_image(kernel, capability);
  if (!image) throw Error(why_no_image(capability));
  Loaded loaded{read_image(kernel, *image), 0};
  Function function = nullptr;  // asked for so that it is in this context, and not loaded by its first launch
  check(driver().cuKernelGetFunction(&function, loaded.kernel), "cuKernelGetFunction of " + kernel);
  int each = 0;
  check(driver().cuOccupancyMaxActiveBlocksPerMultiprocessor(&each, loaded.kernel, kThreads, 0),
        "cuOccupancyMaxActiveBlocksPerMultiprocessor of " + kernel);
  loaded.blocks = attribute(kMultiprocessors, here) * (each > 0 ? each : 1);
  return known[{context, kernel}] = loaded;
}

std::string why_not_on(int device) {
  int handle = 0;
  check(driver().cuDeviceGet(&handle, device), "cuDeviceGet");
  return why_no_image(capability_of(handle));
}

}  // namespace fused_penalty::cuda

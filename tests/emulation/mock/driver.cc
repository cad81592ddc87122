// A libcuda.so.1 without a GPU, for the tests: the functions that kernels/cuda/driver.h names. It reads the images that
// it is given as far as it must (which entry point, for which architecture, with how many bytes of arguments), and runs
// the emulated kernel of that name. As a driver does, it refuses to load anything while a stream is captured, asks for
// a current context, and knows two devices. Every function can be made to fail on its n-th call.
#include "../../../kernels/cuda/driver.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <regex>
#include <set>

#include "mock.h"

extern "C" int PyGILState_Check();

namespace mock {

std::recursive_mutex lock;
std::map<std::string, long long> counts;

namespace {

constexpr int kInvalidValue = 1, kNoDevice = 100, kInvalidContext = 201, kNoBinary = 209, kInvalidPtx = 218,
              kUnsupportedPtx = 222, kNotFound = 500, kCaptureUnsupported = 900;
const std::map<int, std::pair<const char*, const char*>> kWords = {
    {kInvalidValue, {"CUDA_ERROR_INVALID_VALUE", "invalid argument"}},
    {2, {"CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}},
    {kNoDevice, {"CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"}},
    {200, {"CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"}},
    {kInvalidContext, {"CUDA_ERROR_INVALID_CONTEXT", "invalid device context"}},
    {kNoBinary, {"CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"}},
    {kInvalidPtx, {"CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"}},
    {kUnsupportedPtx,
     {"CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."}},
    {kNotFound, {"CUDA_ERROR_NOT_FOUND", "named symbol not found"}},
    {kCaptureUnsupported,
     {"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"}},
};

struct Image {
  std::string entry;
  int arch;
  const Emulated* kernel;
  std::set<void*> contexts;  // in which it is loaded
};
std::deque<Image> images;
std::set<Stream*> recording;

int version = 12010, capability = 75, device_count = 2;  // the oldest of both that the kernels run on
int contexts[16];                                        // a primary one for each device: its address
thread_local void* current = nullptr;

struct {
  std::string function;
  int after = 0, error = 0;
} failure;

// Counts a call; the error that it shall have.
int entered(const char* function) {
  ++counts[function];
  counts["calls that held the GIL"] += PyGILState_Check();
  if (failure.function != function || failure.after-- > 0) return 0;
  failure.function.clear();
  return failure.error;
}

bool is_captured(void* stream) { return stream && recording.count(static_cast<Stream*>(stream)); }

const Kernels& kernels() {
  static const Kernels all = [] {
    Kernels made;
    add_operations(made), add_steps(made);
    return made;
  }();
  return all;
}

// 81: PTX 8.1, which is what a driver of CUDA 12.1 reads; each later one reads another.
int newest_ptx() { return 80 + version % 1000 / 10 + 10 * (version / 1000 - 12); }

// The image as the driver takes it; PTX is all that the module carries in the tests.
int read(const char* text, Image& image) {
  const std::string head(text, strnlen(text, 2000));
  const auto find = [&](const std::string& pattern, std::smatch& found) {
    return std::regex_search(head, found, std::regex(pattern));
  };
  std::smatch ptx, target, entry, bytes;
  if (!find("^\\.version ([0-9])\\.([0-9])\n", ptx) || ptx.position() != 0) return kInvalidPtx;
  if (10 * std::stoi(ptx[1]) + std::stoi(ptx[2]) > newest_ptx()) return kUnsupportedPtx;
  if (!find("\n\\.target sm_([0-9]+)\n", target) || !find("\n\\.visible \\.entry (\\w+)\\(", entry)) return kInvalidPtx;
  const std::string parameter = "\\.param \\.align 8 \\.b8 " + entry[1].str() + "_param_0\\[([0-9]+)\\]";
  const auto known = kernels().find(entry[1]);
  if (known == kernels().end() || !find(parameter, bytes)) return kInvalidPtx;
  if (std::stoul(bytes[1]) != known->second.bytes) return kInvalidPtx;
  image = {entry[1], std::stoi(target[1]), &known->second, {}};
  return 0;
}

void enqueue(void* stream, std::function<void()> work) {
  if (is_captured(stream))
    static_cast<Stream*>(stream)->recording->push_back(std::move(work));
  else
    work();
}

// What a driver does before an image is used in a context for the first time.
int bring(Image& image) {
  if (image.contexts.count(current)) return 0;
  ++counts["loads"];
  if (!recording.empty()) return kCaptureUnsupported;
  if (image.arch > capability) return kNoBinary;
  image.contexts.insert(current);
  return 0;
}

}  // namespace
}  // namespace mock

// What the tests say and ask.
extern "C" {
void mock_fail(const char* function, int after, int error) { mock::failure = {function, after, error}; }
void mock_set_driver(int version, int devices, int capability) {
  mock::version = version, mock::device_count = devices, mock::capability = capability;
}
void mock_set_context(int device) { mock::current = device < 0 ? nullptr : &mock::contexts[device]; }
int mock_device() { return mock::current ? static_cast<int*>(mock::current) - mock::contexts : -1; }
long long mock_count(const char* what) { return mock::counts[what]; }
void mock_capture(mock::Stream* stream, mock::Nodes* nodes) {
  stream->recording = nodes;
  nodes ? (void)mock::recording.insert(stream) : (void)mock::recording.erase(stream);
}
mock::Stream* mock_new_captured_stream() {
  auto* stream = new mock::Stream;
  mock_capture(stream, new mock::Nodes);
  return stream;
}
void mock_end_capture(mock::Stream* stream, int replays) {
  auto* nodes = stream->recording;
  mock_capture(stream, nullptr);
  for (int i = 0; i < replays; ++i)
    for (auto& node : *nodes) node();
  delete nodes;
  delete stream;
}
}

// The driver.
using namespace fused_penalty::cuda;
#define ENTER(function)                    \
  const std::lock_guard guard(mock::lock); \
  if (int e = mock::entered(#function)) return e

extern "C" {

int cuDriverGetVersion(int* version) {
  ENTER(cuDriverGetVersion);
  *version = mock::version;
  return 0;
}
int cuInit(unsigned) {
  ENTER(cuInit);
  return mock::device_count ? 0 : mock::kNoDevice;
}
int cuGetErrorName(int error, const char** name) {
  const auto found = mock::kWords.find(error);
  return found == mock::kWords.end() ? mock::kInvalidValue : (*name = found->second.first, 0);
}
int cuGetErrorString(int error, const char** words) {
  const auto found = mock::kWords.find(error);
  return found == mock::kWords.end() ? mock::kInvalidValue : (*words = found->second.second, 0);
}
int cuDeviceGetCount(int* count) {
  ENTER(cuDeviceGetCount);
  *count = mock::device_count;
  return 0;
}
int cuDeviceGet(int* device, int number) {
  ENTER(cuDeviceGet);
  return number < mock::device_count ? (*device = number, 0) : mock::kInvalidValue;
}
int cuDeviceGetAttribute(int* value, int which, int) {
  ENTER(cuDeviceGetAttribute);
  *value = which == kMultiprocessors ? 3 : which == kComputeMajor ? mock::capability / 10 : mock::capability % 10;
  return 0;
}
int cuDevicePrimaryCtxRetain(Context* context, int device) {
  ENTER(cuDevicePrimaryCtxRetain);
  *context = reinterpret_cast<Context>(&mock::contexts[device]);
  return 0;
}
int cuCtxGetCurrent(Context* context) {
  ENTER(cuCtxGetCurrent);
  *context = static_cast<Context>(mock::current);
  return 0;
}
int cuCtxSetCurrent(Context context) {
  ENTER(cuCtxSetCurrent);
  mock::current = context;
  return 0;
}
int cuCtxGetDevice(int* device) {
  ENTER(cuCtxGetDevice);
  *device = mock_device();
  return *device < 0 ? mock::kInvalidContext : 0;
}
int cuStreamIsCapturing(Stream stream, int* capturing) {
  ENTER(cuStreamIsCapturing);
  *capturing = mock::is_captured(stream);
  return 0;
}
int cuLibraryLoadData(Library* library, const void* data, int*, void**, unsigned, int*, void**, unsigned) {
  ENTER(cuLibraryLoadData);
  if (!mock::recording.empty()) return mock::kCaptureUnsupported;
  mock::Image image;
  if (int e = mock::read(static_cast<const char*>(data), image)) return e;
  mock::images.push_back(image);
  *library = reinterpret_cast<Library>(&mock::images.back());
  return 0;
}
int cuLibraryGetKernel(Kernel* kernel, Library library, const char* name) {
  ENTER(cuLibraryGetKernel);
  *kernel = reinterpret_cast<Kernel>(library);
  return reinterpret_cast<mock::Image*>(library)->entry == name ? 0 : mock::kNotFound;
}
int cuKernelGetFunction(Function* function, Kernel kernel) {
  ENTER(cuKernelGetFunction);
  *function = reinterpret_cast<Function>(kernel);
  return mock::current ? mock::bring(*reinterpret_cast<mock::Image*>(kernel)) : mock::kInvalidContext;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, Kernel kernel, int, size_t) {
  ENTER(cuOccupancyMaxActiveBlocksPerMultiprocessor);
  *blocks = 2;
  return mock::current ? mock::bring(*reinterpret_cast<mock::Image*>(kernel)) : mock::kInvalidContext;
}
int cuMemsetD32Async(Address to, unsigned value, size_t count, Stream stream) {
  ENTER(cuMemsetD32Async);
  if (!mock::current) return mock::kInvalidContext;
  mock::enqueue(stream, [=] { std::fill_n(reinterpret_cast<unsigned*>(to), count, value); });
  return 0;
}
int cuLaunchKernel(Kernel kernel, unsigned grid, unsigned, unsigned, unsigned block, unsigned, unsigned, unsigned,
                   Stream stream, void** parameters, void**) {
  ENTER(cuLaunchKernel);
  if (!mock::current) return mock::kInvalidContext;
  auto& image = *reinterpret_cast<mock::Image*>(kernel);
  if (int e = mock::bring(image)) return e;
  const auto* bytes = static_cast<const char*>(parameters[0]);
  std::vector<uint64_t> argument((image.kernel->bytes + 7) / 8);
  std::memcpy(argument.data(), bytes, image.kernel->bytes);
  mock::enqueue(stream, [=, run = image.kernel->run] { run(grid, block, argument.data()); });
  return 0;
}
}

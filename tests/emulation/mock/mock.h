// The mock driver's parts: what kernels there are (kernels.cc, step_kernels.cc), what the driver does with them
// (driver.cc), and XLA's calls of the handlers (xla.cc). Device memory is host memory.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace mock {

// An emulated kernel: its argument, by value, has so many bytes.
struct Emulated {
  size_t bytes;
  std::function<void(int grid, int block, const void* argument)> run;
};
using Kernels = std::map<std::string, Emulated>;
void add_operations(Kernels&);
void add_steps(Kernels&);

// What a stream does: at once, or, while it is captured, later and again.
using Nodes = std::vector<std::function<void()>>;
struct Stream {
  Nodes* recording = nullptr;
};

extern std::recursive_mutex lock;
extern std::map<std::string, long long> counts;  // of calls by function, and of what went wrong

}  // namespace mock

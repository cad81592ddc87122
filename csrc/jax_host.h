// What the XLA FFI handlers of the CPU share: threads, and numbers of either width.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "../kernels/cpu/parallel.h"
#include "jax_operands.h"

namespace fused_penalty {

// XLA's own threads: they exist already, and the process has no more of them than the user allowed.
class XlaThreads final : public cpu::Helpers {
 public:
  explicit XlaThreads(ffi::ThreadPool pool) : pool_(pool) {}
  int available() const override { return static_cast<int>(pool_.num_threads()); }
  void start(cpu::Task task) override { pool_.Schedule(std::move(task)); }

 private:
  ffi::ThreadPool pool_;
};

// Throws std::invalid_argument for a table that does not fit the leaves.
inline void check_chunks(const Chunk* chunks, int64_t count, const std::vector<uint64_t>& layouts, int64_t slots) {
  const auto leaves = static_cast<int64_t>(layouts.size());
  if (const int64_t i = first_misfit(chunks, count, layouts.data(), leaves, slots); i >= 0)
    throw std::invalid_argument("chunk " + std::to_string(i) + " of the plan does not fit leaf " +
                                std::to_string(chunks[i].leaf));
}

inline std::vector<double> read_doubles(const void* from, size_t n, bool wide) {
  if (wide) {
    const auto* p = static_cast<const double*>(from);
    return {p, p + n};
  }
  const auto* p = static_cast<const float*>(from);
  return {p, p + n};
}

// Totals (slots, columns) as a result; where it is narrow, counts (`is_count` of a column) are written as uint32.
template <class IsCount>
void write_totals(const std::vector<double>& totals, size_t columns, void* result, bool wide, IsCount is_count) {
  if (wide) {
    std::copy(totals.begin(), totals.end(), static_cast<double*>(result));
    return;
  }
  auto* to = static_cast<char*>(result);
  for (size_t i = 0; i < totals.size(); ++i, to += 4) {
    const uint32_t count = narrow_count(totals[i]);
    const auto real = static_cast<float>(totals[i]);
    std::memcpy(to, is_count(i % columns) ? static_cast<const void*>(&count) : &real, 4);
  }
}

}  // namespace fused_penalty

// What the native tests share: leaves on heap arrays of exactly their size, so that a sanitizer sees every read and
// write past an end, their table, and the launch.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "../../kernels/cpu/launch.h"
#include "../../kernels/cpu/pool.h"

namespace fused_penalty::cpu {

inline int failures = 0;

inline void expect(bool ok, const std::string& what) {
  if (ok) return;
  std::printf("FAILED %s\n", what.c_str());
  ++failures;
}

inline int width(DType dtype) { return kDTypes[static_cast<uint32_t>(dtype)].bytes; }

// Small multiples of 1/8 are exact in all four dtypes.
inline void write_element(char* at, DType dtype, double v) {
  const float f = static_cast<float>(v);
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  if (dtype == DType::kFloat64) {
    std::memcpy(at, &v, 8);
  } else if (dtype == DType::kFloat32) {
    std::memcpy(at, &f, 4);
  } else {
    const uint32_t magnitude = bits & 0x7fffffff;
    const uint32_t half = magnitude ? (magnitude - (112u << 23)) >> 13 : 0;
    const auto word = static_cast<uint16_t>(dtype == DType::kBFloat16 ? bits >> 16 : half | (bits >> 16 & 0x8000));
    std::memcpy(at, &word, 2);
  }
}

inline double value_at(int64_t i, int salt) { return static_cast<double>((i * 7 + salt * 3) % 41 - 20) / 8; }

// One leaf, at any byte offset within its allocation that its dtype allows.
struct Leaf {
  DType dtype;
  int64_t size;
  std::unique_ptr<char[]> memory;
  char* data;

  Leaf(DType dtype, int64_t size, int64_t skip, int salt) : dtype(dtype), size(size) {
    memory = std::make_unique<char[]>((size + skip) * width(dtype));
    data = memory.get() + skip * width(dtype);
    for (int64_t i = 0; i < size; ++i) write_element(data + i * width(dtype), dtype, value_at(i, salt));
  }
};

inline std::vector<Chunk> table_of(const std::vector<Leaf>& leaves, int64_t chunk = 1 << 16) {
  std::vector<Chunk> table;
  for (uint32_t l = 0; l < leaves.size(); ++l)
    for (int64_t start = 0; start < leaves[l].size; start += chunk) {
      const auto length = static_cast<uint64_t>(std::min(chunk, leaves[l].size - start));
      table.push_back({static_cast<uint64_t>(start) << 24 | length, l,
                       l << Chunk::kSlotShift | 3 << kDTypeBits | static_cast<uint32_t>(leaves[l].dtype)});
    }
  return table;
}

// Totals of every leaf, columns(op) numbers each.
inline std::vector<double> run(Op op, bool anchored, Isa isa, Helpers& pool, const std::vector<Leaf>& x,
                               const std::vector<Leaf>& anchor, std::vector<Leaf>& out,
                               const std::vector<Chunk>& table) {
  std::vector<const void*> xs, anchors;
  std::vector<void*> outs;
  for (size_t i = 0; i < x.size(); ++i) {
    xs.push_back(x[i].data);
    anchors.push_back(anchor[i].data);
    outs.push_back(out[i].data);
  }
  std::vector<double> coefficients;
  for (size_t i = 0; i < x.size(); ++i) coefficients.insert(coefficients.end(), {0.5, 0.25});
  std::vector<double> totals(x.size() * columns(op));
  launch({op, table.data(), static_cast<int64_t>(table.size()), xs.data(), anchored ? anchors.data() : nullptr,
          writes(op) ? outs.data() : nullptr, coefficients.data(), totals.data(), static_cast<int64_t>(x.size())},
         pool, isa);
  return totals;
}

// What a mode of the program does.
void check_values();
void check_threads();
void check_callers(int children);
void check_failing();
void overrun();  // seeded faults: the sanitizer must end the program
void race();

}  // namespace fused_penalty::cpu

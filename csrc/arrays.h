// What the launches of the modules _cpu and _cuda check of the tensors that they are given.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "../kernels/chunks.h"
#include "tensors.h"

namespace fused_penalty {

using Table = pybind11::array_t<uint32_t, pybind11::array::c_style>;

inline void expect(bool sound, const std::string& name, const char* otherwise) {
  if (!sound) throw pybind11::value_error(name + " " + otherwise);
}

// That a flat walk may go over each of these arrays.
inline void check_memory(const Tensors& arrays, const std::string& name, bool may_be_absent, const Place& place) {
  expect(arrays.lie_at(place), name, place.rule());
  if (const int64_t i = arrays.first_unreadable(may_be_absent); i >= 0)
    throw pybind11::value_error(name + " " + std::to_string(i) + " is absent, or has gaps or overlaps in memory");
}

// The same, and that each is like its leaf. `x`: the leaves.
inline void check_arrays(const Tensors& arrays, const std::string& name, const Tensors& x, bool may_be_absent,
                         const Place& place = {}) {
  expect(arrays.layout == x.layout, name, "must have the sizes and dtypes of x");
  check_memory(arrays, name, may_be_absent, place);
}

inline void check_writable(const Tensors& arrays, const std::string& name) {
  for (size_t i = 0; i < arrays.layout.size(); ++i)
    expect(!arrays.addresses[i] || is_writable(dtype_of_layout(arrays.layout[i])), name,
           "has a dtype that is only read");
}

// The chunks of the table, which lie within the leaves and the slots.
inline const Chunk* checked_chunks(const Table& table, const Tensors& x, int64_t slots) {
  expect(table.ndim() == 2 && table.shape(1) * sizeof(uint32_t) == sizeof(Chunk), "table",
         "must have the shape (chunks, 4)");
  const auto* chunks = reinterpret_cast<const Chunk*>(table.data());
  const auto leaves = static_cast<int64_t>(x.layout.size());
  if (const int64_t i = first_misfit(chunks, table.shape(0), x.layout.data(), leaves, slots); i >= 0)
    throw pybind11::value_error("chunk " + std::to_string(i) + " of the plan does not fit the tensors");
  return chunks;
}

inline std::vector<void*> writable_addresses(const Tensors& arrays) {
  std::vector<void*> found;
  for (const void* p : arrays.addresses) found.push_back(const_cast<void*>(p));
  return found;
}

}  // namespace fused_penalty

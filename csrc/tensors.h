// Tensors read through DLPack's C exchange API: addresses, sizes, dtypes and layout of 2,000 tensors in an
// eighth of a millisecond, where Python attributes take a millisecond and more.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace fused_penalty {

// The memory that a launch reaches: the host's, or that of one device.
struct Place {
  std::optional<std::pair<int, int>> device;  // DLPack's type and index; nothing for the host
  bool holds(int type, int index) const;
  const char* rule() const { return device ? "must lie on the device of the launch" : "must lie on the CPU"; }
};

// A (rows, columns) float64 tensor, row after row; throws ValueError that says what is wrong with it.
struct Rows {
  Rows(pybind11::handle tensor, const std::string& name, int64_t columns, const Place& place = {});
  double* data;
  int64_t count;
};

// A list of tensors. It holds them, so an address is good for as long as this object lives.
class Tensors {
 public:
  // Throws TypeError where an item is not a dense array (sparse, meta, nested, ...) or the kernels
  // do not know its dtype; the caller then looks for the culprit and its name.
  // `like`: None in the list then stands for an absent array (address 0) of that tensor's layout.
  Tensors(const pybind11::list& list, const Tensors* like);

  // Tensors that touch the same bytes, in pairs of which at least one is among these here; positions after these are
  // those of `others`. Empty only if there is no such pair; not a list of all. Exact for dense tensors; two with gaps
  // may interleave without sharing an element.
  std::vector<std::pair<int64_t, int64_t>> shared(const Tensors& others) const;

  // The first tensor that a flat walk over CPU memory cannot read: it has gaps, or no memory; -1 if there is none.
  int64_t first_unreadable(bool may_be_absent) const;
  bool lie_at(const Place&) const;

  std::vector<const void*> addresses;
  // layout_of each tensor; its bytes are the key under which a plan is cached.
  std::vector<uint64_t> layout;
  // (DLPack device type, device index), once for each device that occurs.
  std::vector<std::pair<int, int>> devices;
  // Tensors with gaps or overlaps in memory: a flat walk over their addresses would be wrong.
  std::vector<int64_t> irregular;
  // Tensors without elements.
  std::vector<int64_t> empty;
  // Dense tensors whose elements are not in row-major order.
  std::vector<int64_t> permuted;

 private:
  pybind11::tuple held_;
  std::vector<int64_t> spans_;  // bytes from the first to the last element
};

}  // namespace fused_penalty

// What the XLA FFI handlers of all platforms check and convert alike. XLA hands over whatever operands a program names
// (`jax.ffi.ffi_call`), so each of them is checked here: what does not fit is InvalidArgument.
#pragma once

#include <climits>
#include <exception>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "../kernels/chunks.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace fused_penalty {

// What a handler is given, as XLA decodes it: (table, [strengths], leaf..., [anchor...]) -> (totals, ..., [output...]).
struct Operands {
  Op op;
  ffi::Buffer<ffi::U32> table;
  std::optional<ffi::AnyBuffer> strengths;
  ffi::RemainingArgs args;
  bool anchored;
  ffi::AnyBuffer totals;
  std::optional<ffi::RemainingRets> outputs;
};

// The same after all checks; on a GPU all addresses are of its memory, so the table's content remains unread.
struct Call {
  const Chunk* chunks;
  int64_t chunk_count, slots;
  std::vector<uint64_t> layouts;  // of the leaves
  std::vector<const void*> x, anchor;
  std::vector<void*> out;
};

inline ffi::Unexpected<ffi::Error> invalid(const std::string& what) {
  return {ffi::Error::InvalidArgument("fused_penalty: " + what)};
}

// The one switch over dtypes of the handlers; nothing for a dtype without a kernel.
inline std::optional<uint64_t> layout(const ffi::AnyBuffer& buffer) {
  const auto size = static_cast<int64_t>(buffer.element_count());
  switch (buffer.element_type()) {
    case ffi::F16:
      return layout_of(size, DType::kFloat16);
    case ffi::BF16:
      return layout_of(size, DType::kBFloat16);
    case ffi::F32:
      return layout_of(size, DType::kFloat32);
    case ffi::F64:
      return layout_of(size, DType::kFloat64);
    default:
      return std::nullopt;
  }
}

// Rows of so many numbers, in float64 or a 32-bit type.
inline bool is_matrix(const ffi::AnyBuffer& buffer, int64_t columns, ffi::DataType narrow) {
  return buffer.dimensions().size() == 2 && buffer.dimensions()[1] == columns &&
         (buffer.element_type() == narrow || buffer.element_type() == ffi::F64);
}

inline ffi::ErrorOr<Call> check(const Operands& given) {
  const ffi::AnyBuffer::Dimensions table = given.table.dimensions();
  if (table.size() != 2 || table[1] * sizeof(uint32_t) != sizeof(Chunk) || table[0] > INT_MAX)
    return invalid("the table must have the shape (chunks, 4)");
  // 32-bit stats travel as the bits of uint32, since two of their columns are counts.
  const bool stats = given.op == Op::kStats;
  if (!is_matrix(given.totals, columns(given.op), stats ? ffi::U32 : ffi::F32))
    return invalid(stats ? "stats must be (slots, 5) of uint32 or float64"
                         : "sums must be (slots, 2) of float32 or float64");
  Call call{reinterpret_cast<const Chunk*>(given.table.untyped_data()),
            table[0],
            given.totals.dimensions()[0],
            {},
            {},
            {},
            {}};
  if (call.slots > kMaxSlots) return invalid("more slots than a chunk can name");
  if (writes(given.op) &&
      (!given.strengths || !is_matrix(*given.strengths, 2, ffi::F32) || given.strengths->dimensions()[0] != call.slots))
    return invalid("strengths must be (slots, 2) of float32 or float64");

  const size_t leaves = given.anchored ? given.args.size() / 2 : given.args.size();
  if (given.anchored && (leaves == 0 || given.args.size() % 2)) return invalid("one anchor for each leaf");
  for (size_t i = 0; i < leaves; ++i) {
    const auto leaf = given.args.get<ffi::AnyBuffer>(i);
    if (!leaf || !layout(*leaf)) return invalid("leaf " + std::to_string(i) + " has a dtype without a kernel");
    call.layouts.push_back(*layout(*leaf));
    call.x.push_back(leaf->untyped_data());
  }
  for (size_t i = 0; given.anchored && i < leaves; ++i) {
    const auto anchor = given.args.get<ffi::AnyBuffer>(leaves + i);
    if (!anchor || layout(*anchor) != call.layouts[i])
      return invalid("anchor " + std::to_string(i) + " is not like its leaf");
    call.anchor.push_back(anchor->untyped_data());
  }
  if (!writes(given.op)) return call;
  if (!given.outputs || given.outputs->size() != leaves) return invalid("one output for each leaf");
  for (size_t i = 0; i < leaves; ++i) {
    auto out = given.outputs->get<ffi::AnyBuffer>(i);
    if (!out || layout(**out) != call.layouts[i])
      return invalid("output " + std::to_string(i) + " is not like its leaf");
    call.out.push_back((*out)->untyped_data());
  }
  return call;
}

// Checks and runs. No exception may leave a handler, which XLA calls through C.
template <class Run>
ffi::Error checked(const Operands& given, Run run) {
  try {
    const auto call = check(given);
    return call ? run(*call) : call.error();
  } catch (const std::bad_alloc&) {
    return {ffi::ErrorCode::kResourceExhausted, "fused_penalty: out of memory"};
  } catch (const std::exception& error) {
    return ffi::Error::Internal(std::string("fused_penalty: ") + error.what());
  }
}

}  // namespace fused_penalty

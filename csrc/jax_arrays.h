// What the handlers of the target `fused_penalty` check and convert, on all platforms alike.
//
//   fused_penalty {op, anchored}: (table, [coefficients], leaf..., [anchor...]) -> (totals, [one], [scratch], [new...])
//
// Coefficients and new arrays go with the operations that write, `one` with those that do not, scratch with a GPU. A
// new array may lie where its leaf lies. Totals and coefficients are float64 or 32 bits wide; narrow totals with counts
// among them travel as the bits of uint32.
//
// `one` is 1.0. A gradient multiplied by it depends on this call having read the parameters, so XLA may update donated
// parameters in place and needs no copy of them (docs/design.md, "the echo").
#pragma once

#include "jax_operands.h"

namespace fused_penalty {

// What a handler is given, as XLA decodes it.
struct Operands {
  ffi::Buffer<ffi::U32> table;
  ffi::RemainingArgs args;
  int32_t op;
  bool anchored;
  ffi::RemainingRets results;
};

// The same after all checks. On a GPU all addresses are of its memory, so the content of the table remains unread.
struct Call {
  Op op;
  const Chunk* chunks;
  int64_t chunk_count, slots;
  std::vector<uint64_t> layouts;  // of the leaves
  std::vector<const void*> x, anchor;
  std::vector<void*> out;
  const void* coefficients;  // null where the operation has none
  bool wide_coefficients;
  void* totals;
  bool wide_totals;
  float* one;  // null where the operation has none
  std::optional<ffi::AnyBuffer> scratch;
};

inline ffi::ErrorOr<Call> check(const Operands& given, bool with_scratch) {
  Call call{};
  call.op = op_of(given.op);
  if (reads_old(call.op)) return invalid("the operation reads an array that a custom call does not have");
  const ChunkRows table(given.table);
  call.chunks = table.chunks;
  call.chunk_count = table.count;

  Taker results(given.results);
  const Matrix totals = take_totals(results, columns(call.op), finds_stats(call.op) ? ffi::U32 : ffi::F32);
  call.slots = totals.rows;
  call.totals = totals.data;
  call.wide_totals = totals.wide;
  if (!writes(call.op)) {
    const auto one = results.take();
    if (!one || one->element_type() != ffi::F32 || one->element_count() != 1)
      return invalid("the echo must be one float32");
    call.one = static_cast<float*>(one->untyped_data());
  }
  if (with_scratch) call.scratch = take_scratch(results);

  Taker args(given.args);
  if (writes(call.op)) {
    const Matrix coefficients = take_coefficients(args, 2, call.slots);
    call.coefficients = coefficients.data;
    call.wide_coefficients = coefficients.wide;
  }
  const size_t leaves = given.anchored ? args.left() / 2 : args.left();
  if (given.anchored && (leaves == 0 || args.left() % 2)) return invalid("one anchor for each leaf");
  for (size_t i = 0; i < leaves; ++i) {
    const auto leaf = args.take();
    if (!leaf || !layout(*leaf)) return invalid("leaf " + std::to_string(i) + " has a dtype without a kernel");
    call.layouts.push_back(*layout(*leaf));
    call.x.push_back(leaf->untyped_data());
  }
  for (size_t i = 0; given.anchored && i < leaves; ++i) {
    const auto anchor = args.take();
    if (!anchor || layout(*anchor) != call.layouts[i])
      return invalid("anchor " + std::to_string(i) + " is not like its leaf");
    call.anchor.push_back(anchor->untyped_data());
  }
  if (results.left() != (writes(call.op) ? leaves : 0)) return invalid("one new array for each leaf that is written");
  for (size_t i = 0; results.left(); ++i) {
    const auto out = results.take();
    if (!out || layout(*out) != call.layouts[i])
      return invalid("new array " + std::to_string(i) + " is not like its leaf");
    if (!is_writable(dtype_of_layout(call.layouts[i])))
      return invalid("leaf " + std::to_string(i) + " has a dtype that is only read");
    call.out.push_back(out->untyped_data());
  }
  return call;
}

}  // namespace fused_penalty

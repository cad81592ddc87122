// What the XLA FFI handlers of all platforms check and convert alike: leaves, anchors, gradients.
#pragma once

#include <string>
#include <vector>

#include "../kernels/chunks.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace fused_penalty {

// The one switch over dtypes of the handlers. A dtype without a kernel gives a layout that fits no chunk.
inline uint64_t layout(const ffi::AnyBuffer& buffer) {
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
      return 0;
  }
}

// The buffers of a call: addresses of the leaves, of their anchors and of what is written, where there are any.
struct Arrays {
  std::vector<uint64_t> layouts;  // of the leaves
  std::vector<const void*> x, anchor;
  std::vector<void*> out;
};

// The leaves, then their anchors.
inline Arrays read_leaves(ffi::RemainingArgs args, bool anchored) {
  Arrays arrays;
  const size_t leaves = anchored ? args.size() / 2 : args.size();
  for (size_t i = 0; i < leaves; ++i) {
    const auto leaf = *args.get<ffi::AnyBuffer>(i);
    arrays.layouts.push_back(layout(leaf));
    arrays.x.push_back(leaf.untyped_data());
    if (anchored) arrays.anchor.push_back(args.get<ffi::AnyBuffer>(leaves + i)->untyped_data());
  }
  return arrays;
}

inline ffi::Error read_outputs(ffi::RemainingRets outputs, Arrays& arrays) {
  if (outputs.size() != arrays.layouts.size()) return ffi::Error::InvalidArgument("fused_penalty: one output a leaf");
  for (size_t i = 0; i < outputs.size(); ++i) {
    auto out = *outputs.get<ffi::AnyBuffer>(i);
    if (layout(*out) != arrays.layouts[i])
      return ffi::Error::InvalidArgument("fused_penalty: output " + std::to_string(i) + " is not like its leaf");
    arrays.out.push_back(out->untyped_data());
  }
  return ffi::Error::Success();
}

}  // namespace fused_penalty

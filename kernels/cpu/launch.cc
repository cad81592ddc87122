#include "launch.h"

#include <algorithm>
#include <vector>

#include "../elastic_net.h"

namespace fused_penalty::cpu {

namespace {
constexpr int64_t kElementsPerThread = 512 * 1024;  // below this a helper costs more than it saves
}

void launch(const Launch& call, Helpers& pool, Isa isa) {
  const bool anchored = call.anchor != nullptr;
  const WalkChunk write = walk_for(isa, call.op, anchored);
  const WalkChunk read = walk_for(isa, reading(call.op), anchored);
  std::vector<Stats> partials(call.chunk_count);
  const auto body = [&](int64_t i) noexcept {
    const Chunk& chunk = call.chunks[i];
    const ChunkArrays arrays{call.x[chunk.leaf], anchored ? call.anchor[chunk.leaf] : nullptr,
                             call.out ? call.out[chunk.leaf] : nullptr};
    partials[i] =
        (arrays.out ? write : read)(chunk, arrays, call.coefficients ? call.coefficients + 2 * chunk.slot() : nullptr);
  };

  int64_t elements = 0;
  for (int64_t i = 0; i < call.chunk_count; ++i) elements += call.chunks[i].length();
  const int64_t helpers = std::min<int64_t>(pool.available(), elements / kElementsPerThread - 1);
  if (helpers > 0) {
    for_each(call.chunk_count, static_cast<int>(helpers), pool, body);
  } else {
    for (int64_t i = 0; i < call.chunk_count; ++i) body(i);
  }

  const int width = columns(call.op);
  std::fill_n(call.totals, call.slot_count * width, 0);
  for (int64_t i = 0; i < call.chunk_count; ++i) {
    double* slot = call.totals + call.chunks[i].slot() * width;
    for (int c = 0; c < width; ++c) slot[c] = merged(c, slot[c], partials[i].column[c]);
  }
}

}  // namespace fused_penalty::cpu

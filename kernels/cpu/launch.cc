#include "launch.h"

#include <algorithm>
#include <vector>

namespace fused_penalty::cpu {

namespace {
constexpr int64_t kElementsPerThread = 512 * 1024;  // below this a helper costs more than it saves
}

void launch(const Launch& call, Helpers& pool, Isa isa) {
  const bool anchored = call.anchor != nullptr;
  const WalkChunk write = walk_for(isa, call.op, anchored), read = walk_for(isa, Op::kSums, anchored);
  std::vector<Sums> partials(call.chunk_count);
  const auto body = [&](int64_t i) {
    const Chunk& chunk = call.chunks[i];
    const ChunkArrays arrays{call.x[chunk.leaf], anchored ? call.anchor[chunk.leaf] : nullptr,
                             call.out ? call.out[chunk.leaf] : nullptr};
    partials[i] =
        (arrays.out ? write : read)(chunk, arrays, call.strengths ? call.strengths + 2 * chunk.slot() : nullptr);
  };

  int64_t elements = 0;
  for (int64_t i = 0; i < call.chunk_count; ++i) elements += call.chunks[i].length();
  const int64_t helpers = std::min<int64_t>(pool.available(), elements / kElementsPerThread - 1);
  if (helpers > 0) {
    for_each(call.chunk_count, static_cast<int>(helpers), pool, body);
  } else {
    for (int64_t i = 0; i < call.chunk_count; ++i) body(i);
  }

  std::fill_n(call.sums, call.slot_count, Sums{0, 0});
  for (int64_t i = 0; i < call.chunk_count; ++i) {
    Sums& slot = call.sums[call.chunks[i].slot()];
    slot.abs += partials[i].abs;
    slot.square += partials[i].square;
  }
}

}  // namespace fused_penalty::cpu

#include "launch.h"

#include "../elastic_net.h"
#include "over_chunks.h"

namespace fused_penalty::cpu {

void launch(const Launch& call, Helpers& pool, Isa isa) {
  const bool anchored = call.anchor != nullptr;
  const WalkChunk write = walk_for(isa, call.op, anchored);
  const WalkChunk read = walk_for(isa, reading(call.op), anchored);
  const auto each = [&](const Chunk& chunk) noexcept {
    const ChunkArrays arrays{call.x[chunk.leaf], anchored ? call.anchor[chunk.leaf] : nullptr,
                             call.out ? call.out[chunk.leaf] : nullptr};
    return (arrays.out ? write : read)(chunk, arrays,
                                       call.coefficients ? call.coefficients + 2 * chunk.slot() : nullptr);
  };
  over_chunks<Stats>({call.chunks, call.chunk_count, call.slot_count}, columns(call.op), call.totals, pool, each,
                     merged);
}

}  // namespace fused_penalty::cpu

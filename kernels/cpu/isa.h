// The instruction sets that the walk over a chunk is compiled for, and the choice at run time.
#pragma once

#include "../chunks.h"

namespace fused_penalty::cpu {

enum class Isa { kPortable, kAvx2, kAvx512 };

// The arrays of one leaf; `anchor` and `out` are null where the operation has none.
struct ChunkArrays {
  const void* x;
  const void* anchor;
  void* out;
};

// What is found in one chunk, as far as the operation has columns. `coefficients`: a and b of elastic_net.h, null if
// nothing is written.
using WalkChunk = Stats (*)(const Chunk&, ChunkArrays, const double* coefficients);

WalkChunk portable_walk(Op, bool anchored);
WalkChunk avx2_walk(Op, bool anchored);
WalkChunk avx512_walk(Op, bool anchored);

bool supported(Isa);
Isa best_isa();
WalkChunk walk_for(Isa, Op, bool anchored);

}  // namespace fused_penalty::cpu

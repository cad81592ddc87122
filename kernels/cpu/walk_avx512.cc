#include "walk.h"

namespace fused_penalty::cpu {

WalkChunk avx512_walk(Op op, bool anchored) { return choose_walk(op, anchored); }

}  // namespace fused_penalty::cpu

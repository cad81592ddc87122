#include "isa.h"

namespace fused_penalty::cpu {

#if defined(__x86_64__)
bool supported(Isa isa) {
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
                  __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512cd");
  return isa == Isa::kAvx512 ? v4 : isa == Isa::kAvx2 ? v3 : true;
}

WalkChunk walk_for(Isa isa, Op op, bool anchored) {
  if (isa == Isa::kAvx512) return avx512_walk(op, anchored);
  if (isa == Isa::kAvx2) return avx2_walk(op, anchored);
  return portable_walk(op, anchored);
}
#else
bool supported(Isa isa) { return isa == Isa::kPortable; }

WalkChunk walk_for(Isa, Op op, bool anchored) { return portable_walk(op, anchored); }
#endif

Isa best_isa() {
  static const Isa best = supported(Isa::kAvx512) ? Isa::kAvx512 : supported(Isa::kAvx2) ? Isa::kAvx2 : Isa::kPortable;
  return best;
}

}  // namespace fused_penalty::cpu

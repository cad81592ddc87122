// Work on every chunk of a table, on some threads, and the sums of each slot. The partial results of chunks are added
// to their slots in the order of the table, whichever thread made them.
#pragma once

#include <algorithm>
#include <vector>

#include "../chunks.h"
#include "parallel.h"

namespace fused_penalty::cpu {

struct ChunkTable {
  const Chunk* chunks;
  int64_t count, slots;
};

constexpr int64_t kElementsPerThread = 128 * 1024;  // below this a helper costs more than it saves

// `each(chunk)` gives a Partial; totals (slots, width) are written, and `merge(column, a, b)` makes one of two parts.
template <class Partial, class Each, class Merge>
void over_chunks(const ChunkTable& table, int width, double* totals, Helpers& pool, const Each& each,
                 const Merge& merge) {
  std::vector<Partial> partials(table.count);
  const auto body = [&](int64_t i) noexcept { partials[i] = each(table.chunks[i]); };

  int64_t elements = 0;
  for (int64_t i = 0; i < table.count; ++i) elements += table.chunks[i].length();
  int64_t helpers = elements / kElementsPerThread - 1;
  if (helpers > 0) helpers = std::min<int64_t>(helpers, pool.available());
  if (helpers > 0) {
    for_each(table.count, static_cast<int>(helpers), pool, body);
  } else {
    for (int64_t i = 0; i < table.count; ++i) body(i);
  }

  std::fill_n(totals, table.slots * width, 0);
  for (int64_t i = 0; i < table.count; ++i) {
    double* slot = totals + table.chunks[i].slot() * width;
    for (int c = 0; c < width; ++c) slot[c] = merge(c, slot[c], partials[i].column[c]);
  }
}

}  // namespace fused_penalty::cpu

// Runs one case through the CUDA kernels on the host (cuda_emul.h): reads it from the file argv[1], writes the
// totals, the echo and the outputs to argv[2]. Every array is an allocation of exactly its size, for the sanitizers.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "kernels/cuda/kernel.h"

#ifndef ONLY_OP
#define ONLY_OP -1  // -1 compiles every operation; a test of one is built in a sixth of the time
#endif

using namespace fused_penalty;
using namespace fused_penalty::cuda;

namespace {

struct Header {
  int32_t op, anchored, capacity, grid, wide_coefficients, wide_totals, slots, leaves, chunks;
};

template <class T>
std::vector<T> read(FILE* f, size_t n) {
  std::vector<T> v(n);
  if (n && fread(v.data(), sizeof(T), n, f) != n) abort();
  return v;
}

// `skew` bytes after a multiple of 16, and not a byte longer than needed.
struct Buffer {
  std::unique_ptr<char[]> memory;
  char* data;
  size_t bytes;

  Buffer(size_t bytes, int skew, const std::vector<char>& content) : bytes(bytes) {
    memory.reset(new char[bytes + skew]);  // new[] gives multiples of 16
    data = memory.get() + skew;
    if (!content.empty()) memcpy(data, content.data(), bytes);
  }
};

template <Op kOp, bool kAnchored, int kCapacity>
void run(const Header& h, const Arguments<kCapacity>& arg) {
  auto kernel = run_operation<kOp, kAnchored, kCapacity>;
  LAUNCH(kernel, h.grid, kThreads, 0, 0, arg);
}

template <Op kOp, int kCapacity>
void with_anchor(const Header& h, const Arguments<kCapacity>& arg) {
  if constexpr (ONLY_OP == -1 || static_cast<Op>(ONLY_OP) == kOp)
    h.anchored ? run<kOp, true>(h, arg) : run<kOp, false>(h, arg);
  else
    abort();
}

template <int kCapacity>
void choose(const Header& h, const Arguments<kCapacity>& arg) {
  visit(op_of(h.op), [&]<Op kOp>() { with_anchor<kOp>(h, arg); });
}

template <int kCapacity>
void prepare(const Header& h, FILE* in, FILE* out) {
  const auto table = read<uint32_t>(in, 4 * static_cast<size_t>(h.chunks));
  std::unique_ptr<Chunk[]> chunks(new Chunk[h.chunks]);
  memcpy(chunks.get(), table.data(), table.size() * 4);
  const auto coefficients = read<char>(in, h.slots * 2 * (h.wide_coefficients ? 8 : 4));
  Buffer coefficients_at(coefficients.size(), 0, coefficients);

  std::unique_ptr<Arguments<kCapacity>> arg(new Arguments<kCapacity>{});
  std::vector<Buffer> arrays;
  std::vector<const void*> addresses;
  const Op op = static_cast<Op>(h.op);
  const int outs = writes(op) ? h.leaves : 0;
  const int inputs = h.leaves * (h.anchored ? 2 : 1);
  for (int i = 0; i < inputs + outs; ++i) {
    const auto about = read<int64_t>(in, 3);  // bytes, skew, 0: the array is absent, 2: it is the leaf
    arrays.emplace_back(about[0], static_cast<int>(about[1]), read<char>(in, about[0]));
    addresses.push_back(about[2] == 0 ? nullptr : about[2] == 1 ? arrays.back().data : addresses[i - inputs]);
  }
  std::unique_ptr<const void*[]> more;
  if (addresses.size() > kCapacity) {  // as the launcher does: some at a time, each by value
    more.reset(new const void*[addresses.size()]);
    for (size_t from = 0; from < addresses.size(); from += kCapacity) {
      SomeAddresses<kCapacity> some{
          more.get() + from, static_cast<int>(std::min<size_t>(kCapacity, addresses.size() - from)), {}};
      std::copy_n(addresses.begin() + from, some.count, some.addresses);
      auto kernel = write_addresses<kCapacity>;
      LAUNCH(kernel, 1, kThreads, 0, 0, some);
    }
    arg->more = more.get();
  } else {
    std::copy(addresses.begin(), addresses.end(), arg->addresses);
  }
  std::unique_ptr<double[]> partials(new double[std::max(h.chunks, 1) * columns(op)]);
  Buffer totals(h.slots * columns(op) * (h.wide_totals ? 8 : 4), 0, {});
  unsigned ticket = 0;
  float one = 0;
  arg->chunks = chunks.get();
  arg->coefficients = coefficients_at.data;
  arg->partials = partials.get();
  arg->ticket = &ticket;
  arg->totals = totals.data;
  arg->one = &one;
  arg->chunk_count = h.chunks;
  arg->slots = h.slots;
  arg->leaves = h.leaves;
  arg->wide_coefficients = h.wide_coefficients;
  arg->wide_totals = h.wide_totals;
  choose<kCapacity>(h, *arg);
  fwrite(totals.data, 1, totals.bytes, out);
  fwrite(&one, 4, 1, out);
  for (int i = inputs; i < inputs + outs; ++i) {
    const void* at = addresses[i] ? addresses[i] : arrays[i].data;
    fwrite(at, 1, arrays[i].bytes, out);
  }
}

}  // namespace

int main(int, char** argv) {
  FILE* in = fopen(argv[1], "rb");
  FILE* out = fopen(argv[2], "wb");
  if (!in || !out) return 2;
  const Header h = read<Header>(in, 1)[0];
  if (h.capacity == 480)
    prepare<480>(h, in, out);
  else
    prepare<4000>(h, in, out);
  fclose(in);
  fclose(out);
}

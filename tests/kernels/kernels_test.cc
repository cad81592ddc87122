// The launcher against a plain loop in long double. Modes: values, threads, callers, forks, failing, overrun, race.
#include "kernels_test.h"

#include <cstdlib>

namespace fused_penalty::cpu {
namespace {

double clipped(double d, double limit) { return std::fmin(std::fmax(d, -limit), limit); }

// What `op` leaves in `out` for coefficients 0.5 and 0.25.
double expected_out(Op op, double x, double anchor, double old) {
  const double d = x - anchor, gradient = 0.5 * ((d > 0) - (d < 0)) + 0.25 * d;
  switch (op) {
    case Op::kGradient:
      return gradient;
    case Op::kAddGradient:
      return old + gradient;
    case Op::kProx:
      return anchor + 0.25 * (d - clipped(d, 0.5));
    case Op::kRegularize:
      return x - clipped(d, 0.5) - 0.25 * d;
    case Op::kSums:
    case Op::kStats:
      return old;
  }
  std::abort();
}

}  // namespace

void check_values() {
  const int64_t sizes[] = {0,   1,   3,    15,   16,   17,   31,   32,    33,    96,    258,   511,
                           512, 513, 1023, 1024, 1025, 3072, 8194, 65535, 65536, 65537, 200000};
  PoolThreads pool(1);
  for (Op op : {Op::kSums, Op::kGradient, Op::kAddGradient, Op::kProx, Op::kRegularize, Op::kStats})
    for (int anchored = 0; anchored < 2; ++anchored)
      for (int isa = 0; isa < 3; ++isa) {
        if (!supported(static_cast<Isa>(isa))) continue;
        for (int skip = 0; skip < 3; ++skip) {
          std::vector<Leaf> x, anchor, out;
          for (int d = 0; d < 4; ++d)
            for (int64_t n : sizes) {
              x.emplace_back(static_cast<DType>(d), n, skip, 1);
              anchor.emplace_back(static_cast<DType>(d), n, skip, 2);
              out.emplace_back(static_cast<DType>(d), n, skip, 3);
            }
          const auto totals = run(op, anchored, static_cast<Isa>(isa), pool, x, anchor, out, table_of(x));
          for (size_t l = 0; l < x.size(); ++l) {
            long double abs = 0, square = 0;
            double largest = 0, zeros = 0;
            bool outs = true;
            for (int64_t i = 0; i < x[l].size; ++i) {
              const double origin = anchored ? value_at(i, 2) : 0, d = value_at(i, 1) - origin;
              abs += std::fabs(d);
              square += d * d;
              largest = std::fmax(largest, std::fabs(d));
              zeros += d == 0;
              char expected[8];
              write_element(expected, x[l].dtype, expected_out(op, value_at(i, 1), origin, value_at(i, 3)));
              // bfloat16 has 8 bits: a result of more is rounded by the kernel, here only cut off
              const bool exact = x[l].dtype != DType::kBFloat16 || !writes(op);
              outs &= !exact || std::memcmp(expected, out[l].data + i * width(x[l].dtype), width(x[l].dtype)) == 0;
            }
            const std::string name = "op " + std::to_string(static_cast<int>(op)) + " anchored " +
                                     std::to_string(anchored) + " isa " + std::to_string(isa) + " skip " +
                                     std::to_string(skip) + " leaf " + std::to_string(l);
            const double* found = totals.data() + l * columns(op);
            const auto near = [](double a, long double b) { return std::fabs(a - b) <= 1e-6 * std::fabs(b); };
            expect(near(found[kAbs], abs), name + " abs");
            expect(near(found[kSquare], square), name + " square");
            expect(outs, name + " written");
            if (op != Op::kStats) continue;
            expect(found[kLargest] == largest && found[kZeros] == zeros && found[kNonFinite] == 0, name + " stats");
          }
        }
      }
}

void overrun() {
  std::vector<Leaf> x, anchor, out;
  x.emplace_back(DType::kFloat32, 1000, 0, 1);
  anchor.emplace_back(DType::kFloat32, 1000, 0, 2);
  out.emplace_back(DType::kFloat32, 1000, 0, 3);
  auto table = table_of(x);
  table[0].span += 1;  // one element too many
  PoolThreads pool(1);
  run(Op::kSums, false, best_isa(), pool, x, anchor, out, table);
}

}  // namespace fused_penalty::cpu

using namespace fused_penalty::cpu;

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "values";
  if (mode == "values") check_values();
  if (mode == "threads") check_threads();
  if (mode == "callers") check_callers(0);
  if (mode == "forks") check_callers(20);
  if (mode == "failing") check_failing();
  if (mode == "overrun") overrun();
  if (mode == "race") race();
  std::printf("%s: %d failures\n", mode.c_str(), failures);
  return failures != 0;
}

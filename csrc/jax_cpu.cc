// XLA FFI handlers: check, convert, call the launcher.
//
//   sums      (table, leaf..., [anchor...])             -> sums (slots, 2), one ()
//   gradient  (table, strengths, leaf..., [anchor...])  -> sums (slots, 2), gradient...
//
// `one` is 1.0. A gradient multiplied by it depends on this call having read the parameters, so XLA
// may update donated parameters in place and needs no copy of them (docs/design.md, "the echo").
#include "jax_cpu.h"

#include <string>
#include <vector>

#include "../kernels/cpu/launch.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace fused_penalty {
namespace {

// XLA's own threads: they exist already, and the process has no more of them than the user allowed.
class XlaThreads final : public cpu::Helpers {
 public:
  explicit XlaThreads(ffi::ThreadPool pool) : pool_(pool) {}
  int available() const override { return static_cast<int>(pool_.num_threads()); }
  void start(cpu::Task task) override { pool_.Schedule(std::move(task)); }

 private:
  ffi::ThreadPool pool_;
};

// The one switch over dtypes in this file. A dtype without a kernel gives a layout that fits no chunk.
uint64_t layout(const ffi::AnyBuffer& buffer) {
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

// Reads (slots, 2) float32 or float64 numbers as double.
std::vector<double> read_doubles(const ffi::AnyBuffer& buffer) {
  const size_t n = buffer.element_count();
  if (buffer.element_type() == ffi::F64) {
    const auto* p = static_cast<const double*>(buffer.untyped_data());
    return {p, p + n};
  }
  const auto* p = static_cast<const float*>(buffer.untyped_data());
  return {p, p + n};
}

void write_sums(const std::vector<Sums>& sums, ffi::AnyBuffer out) {
  const auto write = [&](auto* p) {
    for (const Sums& s : sums) {
      *p++ = static_cast<std::remove_reference_t<decltype(*p)>>(s.abs);
      *p++ = static_cast<std::remove_reference_t<decltype(*p)>>(s.square);
    }
  };
  if (out.element_type() == ffi::F64)
    write(static_cast<double*>(out.untyped_data()));
  else
    write(static_cast<float*>(out.untyped_data()));
}

struct Call {
  std::vector<uint64_t> layouts;  // of the leaves
  std::vector<const void*> x, anchor;
  std::vector<void*> out;
  std::vector<double> strengths;
};

ffi::Error run(Op op, ffi::ThreadPool pool, const ffi::Buffer<ffi::U32>& table, Call& call,
               ffi::Result<ffi::AnyBuffer> sums_out) {
  const auto* chunks = reinterpret_cast<const Chunk*>(table.untyped_data());
  const auto chunk_count = static_cast<int64_t>(table.element_count() * sizeof(uint32_t) / sizeof(Chunk));
  const auto slots = static_cast<int64_t>(sums_out->element_count() / 2);
  const auto leaves = static_cast<int64_t>(call.layouts.size());
  if (const int64_t i = first_misfit(chunks, chunk_count, call.layouts.data(), leaves, slots); i >= 0)
    return ffi::Error::InvalidArgument("fused_penalty: chunk " + std::to_string(i) + " of the plan does not fit leaf " +
                                       std::to_string(chunks[i].leaf));
  std::vector<Sums> sums(slots);
  XlaThreads threads(pool);
  cpu::launch({op, chunks, chunk_count, call.x.data(), call.anchor.empty() ? nullptr : call.anchor.data(),
               call.out.empty() ? nullptr : call.out.data(), call.strengths.empty() ? nullptr : call.strengths.data(),
               sums.data(), slots},
              threads);
  write_sums(sums, *sums_out);
  return ffi::Error::Success();
}

Call read_leaves(ffi::RemainingArgs args, bool anchored) {
  Call call;
  const size_t leaves = anchored ? args.size() / 2 : args.size();
  for (size_t i = 0; i < leaves; ++i) {
    const auto leaf = *args.get<ffi::AnyBuffer>(i);
    call.layouts.push_back(layout(leaf));
    call.x.push_back(leaf.untyped_data());
    if (anchored) call.anchor.push_back(args.get<ffi::AnyBuffer>(leaves + i)->untyped_data());
  }
  return call;
}

ffi::Error sums(ffi::ThreadPool pool, ffi::Buffer<ffi::U32> table, ffi::RemainingArgs args, bool anchored,
                ffi::Result<ffi::AnyBuffer> sums_out, ffi::Result<ffi::BufferR0<ffi::F32>> one) {
  Call call = read_leaves(args, anchored);
  *one->typed_data() = 1;
  return run(Op::kSums, pool, table, call, sums_out);
}

ffi::Error gradient(ffi::ThreadPool pool, ffi::Buffer<ffi::U32> table, ffi::AnyBuffer strengths,
                    ffi::RemainingArgs args, bool anchored, ffi::Result<ffi::AnyBuffer> sums_out,
                    ffi::RemainingRets gradients) {
  Call call = read_leaves(args, anchored);
  call.strengths = read_doubles(strengths);
  if (gradients.size() != call.layouts.size() || call.strengths.size() != sums_out->element_count())
    return ffi::Error::InvalidArgument("fused_penalty: one gradient a leaf and one pair of strengths a slot");
  for (size_t i = 0; i < gradients.size(); ++i) {
    auto out = *gradients.get<ffi::AnyBuffer>(i);
    if (layout(*out) != call.layouts[i])
      return ffi::Error::InvalidArgument("fused_penalty: gradient " + std::to_string(i) + " is not like its leaf");
    call.out.push_back(out->untyped_data());
  }
  return run(Op::kGradient, pool, table, call, sums_out);
}

}  // namespace
}  // namespace fused_penalty

XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltySumsCpu, fused_penalty::sums,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::U32>>()
                                  .RemainingArgs()
                                  .Attr<bool>("anchored")
                                  .Ret<ffi::AnyBuffer>()
                                  .Ret<ffi::BufferR0<ffi::F32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(FusedPenaltyGradientCpu, fused_penalty::gradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::U32>>()
                                  .Arg<ffi::AnyBuffer>()
                                  .RemainingArgs()
                                  .Attr<bool>("anchored")
                                  .Ret<ffi::AnyBuffer>()
                                  .RemainingRets());

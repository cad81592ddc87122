// The CUDA handlers as handlers of XLA's CPU client. Each buffer of a call is copied into "device" memory of exactly
// its size between red zones, and results are copied back; so what a launch writes beside its buffers is seen. Command
// buffers work as XLA's do: before each execution the handler's stage `initialize` is called; the first call of a
// program is recorded and then replayed, all later ones are only replayed. What the handler allocated itself is then
// already somebody else's.
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <stdexcept>

#include "mock.h"
#include "xla/ffi/api/c_api.h"

extern "C" {
void mock_capture(mock::Stream*, mock::Nodes*);
void mock_set_context(int device);
}

namespace {

using mock::counts;
mock::Stream stream;
int device = 0, replays = 0, skew = 0;

using Handler = XLA_FFI_Error* (*)(XLA_FFI_CallFrame*);
struct Stages {
  Handler initialize, execute;
};
Stages handlers[2];  // of an operation, of a step

// `bytes` bytes at 16 modulo 32, between red zones.
class Block {
 public:
  static constexpr size_t kZone = 256;
  static constexpr unsigned char kPattern = 0x5a;

  explicit Block(size_t bytes, int skew = 0) : bytes_(bytes), at_(kZone + 16 + skew) {
    size_ = (at_ + bytes + kZone + 31) / 32 * 32;
    memory_.reset(static_cast<unsigned char*>(aligned_alloc(32, size_)));
    memset(memory_.get(), kPattern, size_);
  }
  void* data() { return memory_.get() + at_; }
  size_t bytes() const { return bytes_; }

  // Bytes outside (`whole`: anywhere) that no longer are what they were.
  long long changed(bool whole = false) const {
    long long n = 0;
    for (size_t i = 0; i < size_; ++i) n += (whole || i < at_ || i >= at_ + bytes_) && memory_.get()[i] != kPattern;
    return n;
  }
  void give_away() { memset(memory_.get(), kPattern, size_); }

 private:
  struct Free {
    void operator()(void* p) const { free(p); }
  };
  size_t bytes_, at_, size_;
  std::unique_ptr<unsigned char, Free> memory_;
};

// What handlers have allocated through XLA: theirs until they free it, then somebody else's for ever.
struct Allocation {
  Block block;
  bool given_away = false;
};
std::deque<Allocation> allocations;

XLA_FFI_Error* allocate(XLA_FFI_DeviceMemory_Allocate_Args* args) {
  ++counts["allocations"];
  allocations.push_back({Block(args->size)});
  args->data = allocations.back().block.data();
  return nullptr;
}

XLA_FFI_Error* release(XLA_FFI_DeviceMemory_Free_Args* args) {
  for (auto& a : allocations)
    if (a.block.data() == args->data) a.block.give_away(), a.given_away = true;
  return nullptr;
}

size_t bytes_of(const XLA_FFI_Buffer& buffer) {
  size_t n = 1;
  for (int64_t i = 0; i < buffer.rank; ++i) n *= buffer.dims[i];
  switch (buffer.dtype) {
    case XLA_FFI_DataType_U8:
    case XLA_FFI_DataType_S8:
      return n;
    case XLA_FFI_DataType_F16:
    case XLA_FFI_DataType_BF16:
      return 2 * n;
    case XLA_FFI_DataType_F64:
      return 8 * n;
    case XLA_FFI_DataType_F32:
    case XLA_FFI_DataType_U32:
    case XLA_FFI_DataType_S32:
      return 4 * n;
    default:
      throw std::invalid_argument("the mock has no such dtype");
  }
}

// The buffers of a call on the device; one that is operand and result at once is one block.
class Buffers {
 public:
  explicit Buffers(const XLA_FFI_CallFrame& frame) {
    std::map<void*, size_t> known;
    const auto add = [&](void* given, bool result) {
      const auto& buffer = *static_cast<XLA_FFI_Buffer*>(given);
      const size_t bytes = bytes_of(buffer);
      if (bytes) {
        const auto [at, fresh] = known.emplace(buffer.data, index_.size());
        if (!fresh) return index_.push_back(index_[at->second]);
      }
      index_.push_back(blocks_.size());
      blocks_.emplace_back(bytes, result ? skew : 0);
    };
    for (int64_t i = 0; i < frame.args.size; ++i) add(frame.args.args[i], false);
    operands_ = blocks_.size();
    for (int64_t i = 0; i < frame.rets.size; ++i) add(frame.rets.rets[i], true);
  }

  // The frame of the same call on the device.
  XLA_FFI_CallFrame on_device(XLA_FFI_CallFrame frame) {
    size_t k = 0;
    const auto moved = [&](void** given, int64_t n, std::vector<XLA_FFI_Buffer>& buffers, std::vector<void*>& to) {
      for (int64_t i = 0; i < n; ++i) {
        buffers.push_back(*static_cast<XLA_FFI_Buffer*>(given[i]));
        buffers.back().data = blocks_[index_[k++]].data();
      }
      for (auto& b : buffers) to.push_back(&b);
      return to.data();
    };
    args_.clear(), rets_.clear(), to_args_.clear(), to_rets_.clear();
    frame.args.args = moved(frame.args.args, frame.args.size, args_, to_args_);
    frame.rets.rets = moved(frame.rets.rets, frame.rets.size, rets_, to_rets_);
    return frame;
  }

  // Operands as XLA has them now, and nothing in the results: a launch may not depend on what stood there.
  void fill(const XLA_FFI_CallFrame& frame) {
    for (size_t i = operands_; i < blocks_.size(); ++i) memset(blocks_[i].data(), 0xff, blocks_[i].bytes());
    for (int64_t i = 0; i < frame.args.size; ++i) {
      auto& block = blocks_[index_[i]];
      memcpy(block.data(), static_cast<XLA_FFI_Buffer*>(frame.args.args[i])->data, block.bytes());
    }
  }
  void copy_back(const XLA_FFI_CallFrame& frame) {
    for (int64_t i = 0; i < frame.rets.size; ++i) {
      auto& block = blocks_[index_[frame.args.size + i]];
      memcpy(static_cast<XLA_FFI_Buffer*>(frame.rets.rets[i])->data, block.data(), block.bytes());
    }
  }
  long long damage() const {
    long long n = 0;
    for (const auto& b : blocks_) n += b.changed();
    return n;
  }

 private:
  std::deque<Block> blocks_;
  std::vector<size_t> index_;  // of the operands, then of the results
  size_t operands_ = 0;
  std::vector<XLA_FFI_Buffer> args_, rets_;
  std::vector<void*> to_args_, to_rets_;
};

struct CommandBuffer {
  std::unique_ptr<Buffers> buffers;
  mock::Nodes nodes;
};
std::unique_ptr<CommandBuffer> program;

void look_for_damage(const Buffers& buffers) {
  counts["bytes of others changed"] += buffers.damage();
  for (auto& a : allocations)
    if (a.given_away) counts["bytes of others changed"] += a.block.changed(true);
}

XLA_FFI_Error* hosted(const Stages& handler, XLA_FFI_CallFrame* frame) {
  if (frame->extension_start) return handler.execute(frame);  // XLA asks for metadata
  const std::lock_guard guard(mock::lock);
  XLA_FFI_Api api = *frame->api;
  api.XLA_FFI_Stream_Get = [](XLA_FFI_Stream_Get_Args* args) -> XLA_FFI_Error* {
    args->stream = &stream;
    return nullptr;
  };
  api.XLA_FFI_DeviceOrdinal_Get = [](XLA_FFI_DeviceOrdinal_Get_Args* args) -> XLA_FFI_Error* {
    args->device_ordinal = device;
    return nullptr;
  };
  api.XLA_FFI_DeviceMemory_Allocate = allocate;
  api.XLA_FFI_DeviceMemory_Free = release;
  mock_set_context(device);  // as XLA does, on whatever thread it runs
  const auto call = [&](Buffers& buffers, Handler stage, XLA_FFI_ExecutionStage name) {
    auto mine = buffers.on_device(*frame);
    mine.api = &api;
    mine.stage = name;
    return stage(&mine);
  };
  const auto initialize = [&](Buffers& buffers) {
    return call(buffers, handler.initialize, XLA_FFI_ExecutionStage_INITIALIZE);
  };
  const auto execute = [&](Buffers& buffers) { return call(buffers, handler.execute, XLA_FFI_ExecutionStage_EXECUTE); };
  if (replays == 0) {
    Buffers buffers(*frame);
    buffers.fill(*frame);
    if (auto* error = initialize(buffers)) return error;
    if (auto* error = execute(buffers)) return error;
    look_for_damage(buffers);
    buffers.copy_back(*frame);
    return nullptr;
  }
  if (program) {
    if (auto* error = initialize(*program->buffers)) return error;
  } else {
    auto fresh = std::make_unique<CommandBuffer>();
    fresh->buffers = std::make_unique<Buffers>(*frame);
    if (auto* error = initialize(*fresh->buffers)) return error;
    mock_capture(&stream, &fresh->nodes);
    auto* error = execute(*fresh->buffers);
    mock_capture(&stream, nullptr);
    if (error) return error;
    ++counts["records"];
    program = std::move(fresh);
  }
  for (int i = 0; i < replays; ++i) {
    program->buffers->fill(*frame);
    for (auto& node : program->nodes) node();
    ++counts["replays"];
    look_for_damage(*program->buffers);
  }
  program->buffers->copy_back(*frame);
  return nullptr;
}

}  // namespace

extern "C" {

void mock_command_buffers(int replays_of_each_call) { program.reset(), replays = replays_of_each_call; }
void mock_use_device(int number) { device = number; }
void mock_skew_results(int bytes) { skew = bytes; }
void mock_use_handlers(int step, Handler initialize, Handler execute) { handlers[step] = {initialize, execute}; }

XLA_FFI_Error* mock_fused_penalty(XLA_FFI_CallFrame* f) { return hosted(handlers[0], f); }
XLA_FFI_Error* mock_fused_penalty_step(XLA_FFI_CallFrame* f) { return hosted(handlers[1], f); }
}

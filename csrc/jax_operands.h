// What the XLA FFI handlers of all platforms and targets have in common. XLA hands over whatever operands a program
// names
// (`jax.ffi.ffi_call`), so each of them is checked: what does not fit is InvalidArgument.
#pragma once

#include <climits>
#include <exception>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../kernels/chunks.h"
#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace fused_penalty {

inline ffi::Unexpected<ffi::Error> invalid(const std::string& what) {
  return {ffi::Error::InvalidArgument("fused_penalty: " + what)};
}

// The one switch over dtypes of the handlers; nothing for a dtype without a kernel.
inline std::optional<DType> dtype_of(ffi::DataType type) {
  switch (type) {
    case ffi::F16:
      return DType::kFloat16;
    case ffi::BF16:
      return DType::kBFloat16;
    case ffi::F32:
      return DType::kFloat32;
    case ffi::F64:
      return DType::kFloat64;
    case ffi::F8E4M3FN:
      return DType::kFloat8E4M3;
    case ffi::F8E5M2:
      return DType::kFloat8E5M2;
    default:
      return std::nullopt;
  }
}

inline std::optional<uint64_t> layout(const ffi::AnyBuffer& buffer) {
  const auto dtype = dtype_of(buffer.element_type());
  return dtype ? std::optional(layout_of(static_cast<int64_t>(buffer.element_count()), *dtype)) : std::nullopt;
}

// Rows of so many numbers, in float64 or a 32-bit type.
inline bool is_matrix(const ffi::AnyBuffer& buffer, int64_t columns, ffi::DataType narrow) {
  return buffer.dimensions().size() == 2 && buffer.dimensions()[1] == columns &&
         (buffer.element_type() == narrow || buffer.element_type() == ffi::F64);
}

// Takes the operands, or the results, one by one.
template <class Some>
class Taker {
 public:
  explicit Taker(const Some& some) : some_(some) {}
  size_t left() const { return some_.size() - next_; }
  std::optional<ffi::AnyBuffer> take() {
    if (!left()) return std::nullopt;
    auto found = some_.template get<ffi::AnyBuffer>(next_++);
    if (!found) return std::nullopt;
    if constexpr (std::is_same_v<Some, ffi::RemainingRets>)
      return **found;
    else
      return *found;
  }

 private:
  const Some& some_;
  size_t next_ = 0;
};

// The next operand or result as a matrix of so many columns, in float64 or the narrow type; throws
// std::invalid_argument for anything else.
struct Matrix {
  void* data;
  int64_t rows;
  bool wide;
};

template <class Some>
Matrix take_matrix(Taker<Some>& from, const std::string& name, int64_t columns, ffi::DataType narrow) {
  const auto found = from.take();
  if (!found || !is_matrix(*found, columns, narrow))
    throw std::invalid_argument(name + " must be (slots, " + std::to_string(columns) + ") of float64 or " +
                                (narrow == ffi::U32 ? "uint32" : "float32"));
  return {found->untyped_data(), found->dimensions()[0], found->element_type() == ffi::F64};
}

// The totals: their rows are the slots of the launch.
inline Matrix take_totals(Taker<ffi::RemainingRets>& results, int64_t columns, ffi::DataType narrow) {
  const Matrix totals = take_matrix(results, "totals", columns, narrow);
  if (totals.rows > kMaxSlots) throw std::invalid_argument("more slots than a chunk can name");
  return totals;
}

// The coefficients, a row for each slot.
inline Matrix take_coefficients(Taker<ffi::RemainingArgs>& args, int64_t columns, int64_t slots) {
  const Matrix coefficients = take_matrix(args, "coefficients", columns, ffi::F32);
  if (coefficients.rows != slots) throw std::invalid_argument("coefficients must have a row for each slot");
  return coefficients;
}

inline ffi::AnyBuffer take_scratch(Taker<ffi::RemainingRets>& results) {
  const auto scratch = results.take();
  if (!scratch || scratch->element_type() != ffi::U8) throw std::invalid_argument("scratch must be of uint8");
  return *scratch;
}

// The chunks of a table of a launch with so many slots; throws std::invalid_argument. Their content is checked where it
// can be read: on the CPU.
struct ChunkRows {
  const Chunk* chunks;
  int64_t count;

  explicit ChunkRows(const ffi::Buffer<ffi::U32>& table) {
    const ffi::AnyBuffer::Dimensions shape = table.dimensions();
    if (shape.size() != 2 || shape[1] * sizeof(uint32_t) != sizeof(Chunk) || shape[0] > INT_MAX)
      throw std::invalid_argument("the table must have the shape (chunks, 4)");
    chunks = reinterpret_cast<const Chunk*>(table.untyped_data());
    count = shape[0];
  }
};

// What `run` gives. No exception may leave a handler, which XLA calls through C.
template <class Run>
ffi::Error caught(const Run& run) {
  try {
    return run();
  } catch (const std::invalid_argument& error) {
    return ffi::Error::InvalidArgument(std::string("fused_penalty: ") + error.what());
  } catch (const std::bad_alloc& error) {
    return {ffi::ErrorCode::kResourceExhausted, std::string("fused_penalty: out of memory: ") + error.what()};
  } catch (const std::exception& error) {
    return ffi::Error::Internal(std::string("fused_penalty: ") + error.what());
  }
}

// Checks and runs.
template <class Check, class Run>
ffi::Error checked(const Check& check, const Run& run) {
  return caught([&] {
    const auto call = check();
    return call ? run(*call) : call.error();
  });
}

}  // namespace fused_penalty

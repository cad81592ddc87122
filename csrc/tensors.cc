#include "tensors.h"

#include <algorithm>
#include <numeric>
#include <optional>

#include "../kernels/chunks.h"
#include "dlpack.h"

namespace py = pybind11;

namespace fused_penalty {
namespace {

const DLPackExchangeAPI* exchange_api(PyTypeObject* type) {
  const auto capsule = py::reinterpret_steal<py::object>(
      PyObject_GetAttrString(reinterpret_cast<PyObject*>(type), "__dlpack_c_exchange_api__"));
  if (!capsule) {
    PyErr_Clear();
    return nullptr;
  }
  const auto* api = static_cast<const DLPackExchangeAPI*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (!api) PyErr_Clear();
  return api && api->header.version.major == DLPACK_MAJOR_VERSION ? api : nullptr;
}

// The one switch over dtypes in this file; nothing where the kernels have no such dtype.
std::optional<DType> dtype_of(DLDataType type) {
  if (type.lanes != 1) return std::nullopt;
  switch (type.code) {
    case kDLBfloat:
      return type.bits == 16 ? std::optional(DType::kBFloat16) : std::nullopt;
    case kDLFloat:
      if (type.bits == 16) return DType::kFloat16;
      if (type.bits == 32) return DType::kFloat32;
      if (type.bits == 64) return DType::kFloat64;
      return std::nullopt;
    case kDLFloat8_e4m3fn:
      return DType::kFloat8E4M3;
    case kDLFloat8_e5m2:
      return DType::kFloat8E5M2;
    default:
      return std::nullopt;
  }
}

int64_t element_count(const DLTensor& t) {
  return std::accumulate(t.shape, t.shape + t.ndim, int64_t{1}, std::multiplies<>());
}

// Bytes from the first to the end of the last element.
int64_t span_of(const DLTensor& t, int64_t size) {
  int64_t last = 0;
  for (int d = 0; d < t.ndim; ++d) last += (t.shape[d] - 1) * t.strides[d];
  return size ? (last + 1) * (t.dtype.bits / 8) : 0;
}

bool is_row_major(const DLTensor& t) {
  int64_t expected = 1;
  for (int d = t.ndim - 1; d >= 0; --d) {
    if (t.shape[d] != 1 && t.strides[d] != expected) return false;
    expected *= t.shape[d];
  }
  return true;
}

// True where the elements fill their memory without gap or overlap, in whatever order of dimensions.
bool is_dense(const DLTensor& t) {
  std::vector<int> order(t.ndim);
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int a, int b) { return t.strides[a] < t.strides[b]; });
  int64_t expected = 1;
  for (int d : order) {
    if (t.shape[d] == 1) continue;
    if (t.strides[d] != expected) return false;
    expected *= t.shape[d];
  }
  return true;
}

// Reads tensors that are mostly of one type, whose API it looks up once.
class Reader {
 public:
  DLTensor read(py::handle item) {
    if (Py_TYPE(item.ptr()) != last_type_) {
      last_type_ = Py_TYPE(item.ptr());
      api_ = exchange_api(last_type_);
    }
    DLTensor t;
    if (!api_ || !api_->dltensor_from_py_object_no_sync) throw py::type_error("not a tensor that DLPack can show");
    if (api_->dltensor_from_py_object_no_sync(item.ptr(), &t)) throw py::error_already_set();
    return t;
  }

 private:
  PyTypeObject* last_type_ = nullptr;
  const DLPackExchangeAPI* api_ = nullptr;
};

}  // namespace

bool Place::holds(int type, int index) const {
  return device ? *device == std::pair(type, index) : type == kDLCPU || type == kDLCUDAHost || type == kDLROCMHost;
}

Rows::Rows(py::handle tensor, const std::string& name, int64_t columns, const Place& place) {
  const DLTensor t = Reader().read(tensor);
  const auto refuse = [&](const std::string& what) { throw py::value_error(name + " " + what); };
  if (dtype_of(t.dtype) != DType::kFloat64) refuse("must be float64");
  if (t.ndim != 2 || t.shape[1] != columns) refuse("must have the shape (slots, " + std::to_string(columns) + ")");
  if (!place.holds(t.device.device_type, t.device.device_id)) refuse(place.rule());
  if (t.shape[0] && !t.data) refuse("has no memory");
  if (t.shape[0] && !is_row_major(t)) refuse("must be contiguous");
  data = reinterpret_cast<double*>(static_cast<char*>(t.data) + t.byte_offset);
  count = t.shape[0];
}

Tensors::Tensors(const py::list& list, const Tensors* like) : held_(list) {
  if (like && like->layout.size() != list.size()) throw py::value_error("the lists differ in length");
  addresses.reserve(list.size());
  layout.reserve(list.size());
  spans_.reserve(list.size());
  Reader reader;
  for (const py::handle item : held_) {
    if (like && item.is_none()) {
      const size_t i = addresses.size();
      addresses.push_back(nullptr);
      layout.push_back(like->layout[i]);
      spans_.push_back(0);
      continue;
    }
    const DLTensor t = reader.read(item);
    const auto dtype = dtype_of(t.dtype);
    const int64_t size = element_count(t);
    if (!dtype || (size && !t.data)) throw py::type_error("not a tensor that the kernels can read");
    if (!size) empty.push_back(static_cast<int64_t>(addresses.size()));
    if (size && !is_row_major(t))
      (is_dense(t) ? permuted : irregular).push_back(static_cast<int64_t>(addresses.size()));
    const std::pair<int, int> device{t.device.device_type, t.device.device_id};
    if (std::find(devices.begin(), devices.end(), device) == devices.end()) devices.push_back(device);
    addresses.push_back(static_cast<const char*>(t.data) + t.byte_offset);
    layout.push_back(layout_of(size, *dtype));
    spans_.push_back(span_of(t, size));
  }
}

int64_t Tensors::first_unreadable(bool may_be_absent) const {
  if (!irregular.empty()) return irregular.front();
  for (size_t i = 0; i < addresses.size(); ++i)
    if (!addresses[i] && size_of_layout(layout[i]) && !may_be_absent) return static_cast<int64_t>(i);
  return -1;
}

bool Tensors::lie_at(const Place& place) const {
  return std::all_of(devices.begin(), devices.end(),
                     [&](const std::pair<int, int>& device) { return place.holds(device.first, device.second); });
}

std::vector<std::pair<int64_t, int64_t>> Tensors::shared(const Tensors& others) const {
  struct Span {
    const char *first, *end;
    int64_t position;
    bool ours;
  };
  std::vector<Span> all;
  const auto add = [&](const Tensors& tensors, bool ours) {
    const auto base = ours ? 0 : static_cast<int64_t>(addresses.size());
    for (size_t i = 0; i < tensors.addresses.size(); ++i) {
      const auto* first = static_cast<const char*>(tensors.addresses[i]);
      if (tensors.spans_[i]) all.push_back({first, first + tensors.spans_[i], base + static_cast<int64_t>(i), ours});
    }
  };
  add(*this, true);
  add(others, false);
  std::sort(all.begin(), all.end(), [](const Span& a, const Span& b) { return a.first < b.first; });
  std::vector<std::pair<int64_t, int64_t>> found;
  const Span *any = nullptr, *ours = nullptr;  // of those before, the one that ends last
  for (const Span& span : all) {
    const Span* before = span.ours ? any : ours;
    if (before && span.first < before->end) found.emplace_back(before->position, span.position);
    if (!any || span.end > any->end) any = &span;
    if (span.ours && (!ours || span.end > ours->end)) ours = &span;
  }
  return found;
}

}  // namespace fused_penalty

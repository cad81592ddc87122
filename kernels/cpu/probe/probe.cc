#include <Python.h>

#include <concepts>
#include <functional>
#include <thread>

enum class Kind { kOne };
struct Options {
  Kind kind;
  int lanes;
};

// As the kernels have them: GCC's vectors, which Microsoft's compiler lacks.
typedef float Floats __attribute__((vector_size(16)));
typedef unsigned Words __attribute__((vector_size(16)));

template <std::floating_point T>
Words bits(T x) {
  using enum Kind;
  const Options options{.kind = kOne, .lanes = 4};
  const Floats all = Floats{x, x, x, x} * static_cast<float>(options.lanes);
  return __builtin_bit_cast(Words, all);
}

extern "C" PyObject* probe() {
  unsigned found = 0;
  std::thread([&] { found = bits(1.0f)[0]; }).join();
  return PyLong_FromUnsignedLong(found);
}

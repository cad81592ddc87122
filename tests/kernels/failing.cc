#include "failing.h"

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <new>

namespace {

std::atomic<int> every_thread{0}, created{0}, failed{0};
thread_local int until_failure = 0;  // allocations of this thread; 0: none fails
thread_local int has_failed = 0;

using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);

}  // namespace

extern "C" {

void fail_every_thread(int every) {
  created = failed = 0;
  every_thread = every;
}
int failed_threads() { return failed; }

void fail_allocation(int number) {
  until_failure = number;
  has_failed = 0;
}
int allocation_failed() { return has_failed; }

// In place of libc's, or of the sanitizer's, which is called.
int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*run)(void*), void* argument) {
  static const auto create = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  const int every = every_thread;
  if (every && ++created % every == 0) {
    ++failed;
    return EAGAIN;  // what RLIMIT_NPROC and a cgroup give
  }
  return create(thread, attributes, run, argument);
}
}

void* operator new(size_t bytes) {
  if (until_failure && --until_failure == 0) {
    has_failed = 1;
    throw std::bad_alloc();
  }
  if (void* p = std::malloc(bytes ? bytes : 1)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }

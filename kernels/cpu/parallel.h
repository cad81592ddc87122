// Runs body(0) ... body(n - 1) on the calling thread and some helpers. Where helpers come from differs: our own pool
// (pool.h), or one that the framework owns.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <type_traits>
#include <utility>

namespace fused_penalty::cpu {

using Task = std::function<void()>;

// Starts a task on another thread, at once or later or never; `start` may throw where it cannot.
class Helpers {
 public:
  virtual ~Helpers() = default;
  virtual int available() const = 0;  // how many tasks are worth starting
  virtual void start(Task) = 0;
};

// Waits for what is about to happen, awake: going to sleep and being woken takes longer. Returns whether it has
// happened.
template <class Condition>
bool comes_soon(const Condition& condition) {
  const auto patience = std::chrono::microseconds(30);
  for (const auto start = std::chrono::steady_clock::now();;) {
    for (int i = 0; i < 64; ++i) {
      if (condition()) return true;
#if defined(__x86_64__)
      __builtin_ia32_pause();
#endif
    }
    if (std::chrono::steady_clock::now() - start > patience) return false;
  }
}

// The caller works too and waits only for indices that somebody has taken, never for a helper to
// start: a busy pool makes the call slower, not stuck. A helper that starts after the end finds no
// index left and touches nothing but the shared state, which it owns.
//
// Helpers read `body` and what it refers to, so nothing may leave this function between the first start and
// the end of the wait: the body cannot throw, and a helper that cannot be had is done without.
template <class Body>
void for_each(int64_t n, int helpers, Helpers& pool, const Body& body) {
  static_assert(std::is_nothrow_invocable_v<const Body&, int64_t>, "an exception would leave helpers at work");
  struct State {
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable finished;
  };
  const auto state = std::make_shared<State>();
  const auto work = [state, n, &body]() noexcept {
    int64_t mine = 0;
    for (int64_t i; (i = state->next.fetch_add(1)) < n; ++mine) body(i);
    if (mine && state->done.fetch_add(mine) + mine == n) {
      std::lock_guard<std::mutex> lock(state->mutex);
      state->finished.notify_one();
    }
  };
  try {
    for (int h = 0; h < helpers; ++h) pool.start(work);
  } catch (const std::exception&) {  // no thread or no memory: those that have started do the work, and the caller
  }
  work();
  const auto all_done = [&] { return state->done.load() == n; };
  if (comes_soon(all_done)) return;
  std::unique_lock<std::mutex> lock(state->mutex);
  state->finished.wait(lock, all_done);
}

}  // namespace fused_penalty::cpu

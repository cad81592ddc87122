// Runs body(0) ... body(n - 1) on the calling thread and some helpers. Where helpers come from differs:
// threads started for this call, or a pool that the framework owns.
//
// There is no pool of our own and no OpenMP: a pool's threads do not exist in a forked child, which then
// waits for ever. Starting a thread costs some 20 microseconds, so small work gets no helper.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace fused_penalty::cpu {

using Task = std::function<void()>;

// Starts a task on another thread, at once or later or never; `start` may throw where it cannot.
class Helpers {
 public:
  virtual ~Helpers() = default;
  virtual int available() const = 0;  // how many tasks are worth starting
  virtual void start(Task) = 0;
};

// Threads that live as long as this object.
class CallThreads final : public Helpers {
 public:
  explicit CallThreads(int threads) : available_(threads - 1) {}
  ~CallThreads() override {
    for (auto& t : threads_) t.join();
  }
  int available() const override { return available_; }
  void start(Task task) override { threads_.emplace_back(std::move(task)); }

 private:
  int available_;
  std::vector<std::thread> threads_;
};

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
  std::unique_lock<std::mutex> lock(state->mutex);
  state->finished.wait(lock, [&] { return state->done.load() == n; });
}

}  // namespace fused_penalty::cpu

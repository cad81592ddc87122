#include "pool.h"

#include <algorithm>
#include <system_error>
#include <thread>
#if defined(__linux__)
#include <sched.h>
#endif
#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace fused_penalty::cpu {
namespace {

std::atomic<Pool*> current{nullptr};

#if !defined(_WIN32)
[[maybe_unused]] const int registered = pthread_atfork(nullptr, nullptr, [] { current = nullptr; });
#endif

// Those that this process may run on.
int processors() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

Pool& Pool::of_this_process() {
  Pool* pool = current;
  if (pool) return *pool;
  // Two calls may be the first. No lock: a fork might leave it closed.
  auto* made = new Pool;
  if (current.compare_exchange_strong(pool, made)) return *made;
  delete made;
  return *pool;
}

void Pool::start(Task task, int most) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (tasks_.size() >= static_cast<size_t>(most)) return;
    if (threads_ < most) {
      try {
        std::thread(&Pool::work, this).detach();
        ++threads_;
      } catch (const std::system_error&) {
        if (threads_ == 0) throw;
      }
    }
    tasks_.push_back(std::move(task));
    waiting_ = tasks_.size();
  }
  woken_.notify_one();
}

void Pool::work() {
  for (;;) next()();
}

Task Pool::next() {
  comes_soon([this] { return waiting_ > 0; });
  std::unique_lock<std::mutex> lock(mutex_);
  woken_.wait(lock, [this] { return !tasks_.empty(); });
  Task task = std::move(tasks_.front());
  tasks_.pop_front();
  waiting_ = tasks_.size();
  return task;
}

int PoolThreads::available() const {
  if (!helpers_) helpers_ = std::min(threads_, processors()) - 1;
  return *helpers_;
}

}  // namespace fused_penalty::cpu

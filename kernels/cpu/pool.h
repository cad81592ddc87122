// Threads that wait for the next call, for frameworks that lend none: starting a thread takes as long as reading a
// megabyte.
//
// A forked child has none of its parent's threads, and waiting for them is how OpenMP hangs there. So a fork makes the
// child forget the pool, with whatever its threads held at the time, and the child's first large call starts another.
// Threads are started when they are first wanted; nobody joins them, they sleep until the process ends.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "parallel.h"

namespace fused_penalty::cpu {

class Pool {
 public:
  static Pool& of_this_process();

  // On one of at most `most` threads, soon; or never, where these have more to do than they can begin. Throws
  // std::system_error if there is no thread yet and none can be had.
  void start(Task, int most);

 private:
  void work();
  Task next();

  std::mutex mutex_;
  std::condition_variable woken_;
  std::deque<Task> tasks_;
  std::atomic<size_t> waiting_{0};  // tasks, for threads that look without the lock
  int threads_ = 0;
};

// Helpers from the pool, for `threads` in all with the caller, but no more than processors that this process may run
// on. Nothing is asked or started before a call is large enough for a helper.
class PoolThreads final : public Helpers {
 public:
  explicit PoolThreads(int threads) : threads_(threads) {}
  int available() const override;
  void start(Task task) override { Pool::of_this_process().start(std::move(task), available()); }

 private:
  int threads_;
  mutable std::optional<int> helpers_;  // once it has been asked for
};

}  // namespace fused_penalty::cpu

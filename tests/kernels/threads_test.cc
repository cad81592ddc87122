// Threads of the launcher: any number of them, late or none, several callers, forked children, creations and
// allocations that fail.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <new>
#include <stdexcept>
#include <thread>

#include "failing.h"
#include "kernels_test.h"

namespace fused_penalty::cpu {
namespace {

// So many threads of a pool, whatever this machine has.
class Exactly final : public Helpers {
 public:
  explicit Exactly(int threads, Pool& pool = Pool::of_this_process()) : helpers_(threads - 1), pool_(pool) {}
  int available() const override { return helpers_; }
  void start(Task task) override { pool_.start(std::move(task), helpers_); }

 private:
  int helpers_;
  Pool& pool_;
};

// Helpers that start when the work is over: what a busy pool of a framework does.
class LateThreads final : public Helpers {
 public:
  ~LateThreads() override {
    for (auto& task : tasks_) std::thread(task).join();
  }
  int available() const override { return 3; }
  void start(Task task) override { tasks_.push_back(std::move(task)); }

 private:
  std::vector<Task> tasks_;
};

// A call large enough for helpers, and what one thread makes of it.
struct LargeCall {
  std::vector<Leaf> x, anchor, out;
  std::vector<Chunk> table;
  std::vector<double> expected;

  LargeCall() {
    for (int64_t n : {1500000, 7, 800000}) {
      x.emplace_back(DType::kFloat32, n, 0, 1);
      anchor.emplace_back(DType::kFloat32, n, 0, 2);
      out.emplace_back(DType::kFloat32, n, 0, 3);
    }
    table = table_of(x, 1 << 14);
    Exactly one(1);
    expected = run(Op::kGradient, true, best_isa(), one, x, anchor, out, table);
  }

  // The same bits, and every element written.
  void expect_same(Helpers& pool, const std::string& name) {
    for (Leaf& leaf : out) std::fill_n(reinterpret_cast<float*>(leaf.data), leaf.size, 77.0f);
    const auto totals = run(Op::kGradient, true, best_isa(), pool, x, anchor, out, table);
    expect(std::memcmp(totals.data(), expected.data(), totals.size() * sizeof(double)) == 0, name);
    bool written = true;
    for (const Leaf& leaf : out)
      written &=
          std::count(reinterpret_cast<float*>(leaf.data), reinterpret_cast<float*>(leaf.data) + leaf.size, 77.0f) == 0;
    expect(written, name + " written");
  }
};

}  // namespace

void check_threads() {
  LargeCall call;
  for (int threads = 2; threads <= 5; ++threads)
    for (int repeat = 0; repeat < 5; ++repeat) {
      Exactly pool(threads);
      call.expect_same(pool, "threads " + std::to_string(threads));
    }
  LateThreads late;
  call.expect_same(late, "helpers that start late");
}

// Several callers of one pool, and `children` forked in the midst of their calls.
void check_callers(int children) {
  std::atomic<bool> over{false};
  std::vector<std::thread> callers;
  for (int c = 0; c < 3; ++c)
    callers.emplace_back([&] {
      LargeCall call;
      while (!over) {
        Exactly pool(4);
        call.expect_same(pool, "one of several callers");
      }
    });
  LargeCall call;
  for (int repeat = 0; repeat < 20; ++repeat) {
    Exactly pool(4);
    call.expect_same(pool, "the last of several callers");
  }
  for (int child = 0; child < children; ++child) {
    const pid_t id = fork();
    if (id == 0) {
      Exactly pool(4);
      call.expect_same(pool, "in a child");
      _exit(failures > 0);
    }
    int status = 0;
    waitpid(id, &status, 0);
    expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child ends well");
  }
  over = true;
  for (auto& caller : callers) caller.join();
}

namespace {

// Helpers of which a pool has none to give.
class NoThreads final : public Helpers {
 public:
  int available() const override { return 3; }
  void start(Task) override { throw std::runtime_error("the pool is closed"); }
};

}  // namespace

void check_failing() {
  LargeCall call;
  static auto& pools = *new std::vector<Pool*>;  // found by the leak sanitizer at the end
  for (int every : {1, 2, 3, 5}) {
    fail_every_thread(every);
    pools.push_back(new Pool);  // its threads never end
    for (int repeat = 0; repeat < 4; ++repeat)
      for (int threads = 2; threads <= 7; ++threads) {
        Exactly pool(threads, *pools.back());
        call.expect_same(pool, std::to_string(threads) + " threads, every " + std::to_string(every) + " fails");
      }
    expect(failed_threads() > 0, "a creation has failed");
    fail_every_thread(0);
  }
  NoThreads none;
  call.expect_same(none, "a pool that throws");
  // Each allocation of a launch in turn: either it was not needed, or the call ends in bad_alloc.
  int refused = 0;
  for (int number = 1;; ++number) {
    std::vector<double> totals(call.x.size() * 2);
    std::vector<const void*> xs;
    for (const Leaf& leaf : call.x) xs.push_back(leaf.data);
    Exactly pool(4);
    const Launch sums{Op::kSums, call.table.data(), static_cast<int64_t>(call.table.size()),
                      xs.data(), nullptr,           nullptr,
                      nullptr,   totals.data(),     static_cast<int64_t>(xs.size())};
    fail_allocation(number);
    try {
      launch(sums, pool);
    } catch (const std::bad_alloc&) {
      ++refused;
    }
    const bool has_failed = allocation_failed();
    fail_allocation(0);
    if (!has_failed) break;
  }
  expect(refused > 0, "an allocation that fails is an exception");
}

void race() {
  int64_t shared = 0;
  Exactly pool(4);
  for_each(100000, 3, pool, [&](int64_t i) noexcept { shared += i; });
  std::printf("%lld\n", static_cast<long long>(shared));
}

}  // namespace fused_penalty::cpu

// The machinery under cuda_emul.h: fibers, warps, blocks, barriers, shuffles, atomics.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>  // host fallbacks of the conversion intrinsics
#include <vector_functions.h>
#include <vector_types.h>  // float4, dim3, ... : plain host headers of the CUDA toolkit (or the PyPI runtime wheel)

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned);
void __tsan_destroy_fiber(void*);
void __tsan_switch_to_fiber(void*, unsigned);
void __tsan_acquire(void*);
void __tsan_release(void*);
}
#define EMU_REL(p) __tsan_release((void*)(p))
#define EMU_ACQ(p) __tsan_acquire((void*)(p))
extern "C" {
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
struct EmuQuiet {  // the emulator's own bookkeeping is not part of the test
  EmuQuiet() {
    AnnotateIgnoreReadsBegin("", 0);
    AnnotateIgnoreWritesBegin("", 0);
  }
  ~EmuQuiet() {
    AnnotateIgnoreReadsEnd("", 0);
    AnnotateIgnoreWritesEnd("", 0);
  }
};
#else
struct EmuQuiet {
  EmuQuiet() {}
  ~EmuQuiet() {}
};
#define EMU_REL(p) ((void)0)
#define EMU_ACQ(p) ((void)0)
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__x86_64__)
#define EMU_UCONTEXT 1
#include <ucontext.h>
#endif
#undef __global__
#undef __device__
#undef __host__
#undef __shared__
#undef __forceinline__
#undef __launch_bounds__
#undef __grid_constant__
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ static_assert(false, "write SMEM(T, name, [N])");

namespace emu {
struct Block;
struct Warp;
enum Wait { RUN, BAR, WARP, DONE };
#ifdef EMU_UCONTEXT
using Ctx = ucontext_t;
#else
struct Ctx {
  void* sp;
};
extern "C" void emu_switch(void** from, void* to);
__asm__(
    ".text\n.weak emu_switch\nemu_switch:\n pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq "
    "%r15\n"
    " movq %rsp,(%rdi)\n movq %rsi,%rsp\n popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n "
    "ret\n");
#endif
struct Fiber {
  Ctx ctx;
  std::unique_ptr<char[]> stack;
  uint3 tid{};
  unsigned lin = 0;
  Block* blk = nullptr;
  Warp* warp = nullptr;
  Wait wait = DONE;
  int (*src)(int, int, int) = nullptr;
  int arg = 0, width = 32;
  uint64_t val[2], res[2];
  std::vector<void*> seen;  // atomics read since the last fence (acquire candidates)
  bool fenced = false;
  void* tsan = nullptr;
  void* fake = nullptr;
};
struct Warp {
  unsigned alive = 0;
  std::vector<std::pair<unsigned, unsigned>> pend;
  Fiber* lane[32];
  char tag;
};  // pend: mask, lanes arrived
struct Block {
  uint3 idx{};
  std::vector<Warp> warps;
  std::vector<Fiber*> fibers;
  unsigned alive = 0, at_bar = 0;
  const void* site = nullptr;
  int pred_and = 1, pred_or = 0, pred_cnt = 0, res_and = 0, res_or = 0, res_cnt = 0;
  std::map<const void*, void*> shared;
  void* dyn = nullptr;
  char bar_tag;
};
struct Sched {
  Ctx main;
  Fiber* cur = nullptr;
  dim3 gdim, bdim;
  std::function<void()> body;
  std::vector<Fiber*> ready;
  size_t dyn_bytes = 0;
  uint64_t rng = 0;
  bool yield_atomics = false;
  void* tsan_main = nullptr;
  const void* main_stack = nullptr;
  size_t main_size = 0;
  void* main_fake = nullptr;
  const char* kernel = "";
  uint64_t switches = 0;
};
inline Sched S;
inline size_t stack_bytes() {
#ifdef EMU_UCONTEXT
  return 128 << 10;
#else
  return 128 << 10;  // a fiber holds the 32 KB of arguments that a launch may have
#endif
}
[[noreturn]] inline void die(const char* what) {
  fprintf(stderr, "cuda_emul: %s in kernel '%s'", what, S.kernel);
  if (S.cur)
    fprintf(stderr, ", block (%u,%u,%u) thread (%u,%u,%u)", S.cur->blk->idx.x, S.cur->blk->idx.y, S.cur->blk->idx.z,
            S.cur->tid.x, S.cur->tid.y, S.cur->tid.z);
  fputc('\n', stderr);
  abort();
}
inline void to_fiber(Fiber* f) {
  S.cur = f;
  S.switches++;
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(f->tsan, 1);  // 1: switching orders nothing
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&S.main_fake, f->stack.get(), stack_bytes());
#endif
#ifdef EMU_UCONTEXT
  swapcontext(&S.main, &f->ctx);
#else
  emu_switch(&S.main.sp, f->ctx.sp);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(S.main_fake, nullptr, nullptr);
#endif
  S.cur = nullptr;
}
inline void to_main(bool last = false) {
  Fiber* f = S.cur;
  (void)last;
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(S.tsan_main, 1);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(last ? nullptr : &f->fake, S.main_stack, S.main_size);
#endif
#ifdef EMU_UCONTEXT
  swapcontext(&f->ctx, &S.main);
#else
  emu_switch(&f->ctx.sp, S.main.sp);
#endif
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(f->fake, &S.main_stack, &S.main_size);
#endif
}
inline void make_ready(Fiber* f) {
  f->wait = RUN;
  S.ready.push_back(f);
}
inline void yield_now() {
  EmuQuiet q;
  make_ready(S.cur);
  to_main();
}
inline void bar_release(Block* b) {  // all live threads of the block are at the barrier
  b->res_and = b->pred_and;
  b->res_or = b->pred_or;
  b->res_cnt = b->pred_cnt;
  b->pred_and = 1;
  b->pred_or = 0;
  b->pred_cnt = 0;
  b->at_bar = 0;
  b->site = nullptr;
  for (Fiber* f : b->fibers)
    if (f->wait == BAR) make_ready(f);
}
inline void warp_release(Warp* w, unsigned mask) {  // all lanes of the mask have arrived: hand out the results
  for (int l = 0; l < 32; l++)
    if (mask >> l & 1) {
      Fiber* f = w->lane[l];
      int s = f->src ? f->src(l, f->arg, f->width) : -1;
      if (s < 0) s = l;
      if (!(mask >> s & 1)) die("shuffle: source lane is not in the mask");
      f->res[0] = w->lane[s]->val[0];
      f->res[1] = w->lane[s]->val[1];
      make_ready(f);
    }
}
inline void entry() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &S.main_stack, &S.main_size);
#endif
  S.body();
  EMU_REL(&S);
  {
    EmuQuiet q;
    Fiber* f = S.cur;
    Block* b = f->blk;
    f->wait = DONE;
    b->alive--;
    f->warp->alive &= ~(1u << (f->lin & 31));
    if (b->alive && b->at_bar == b->alive) bar_release(b);  // exited threads do not hold a barrier (sm_70+)
  }
  to_main(true);
  abort();
}
inline int barrier(const void* site, int pred) {
  Fiber* f = S.cur;
  Block* b = f->blk;
  EMU_REL(&b->bar_tag);
  {
    EmuQuiet q;
    if (b->site && b->site != site && !getenv("CUDA_EMUL_LAX"))
      die("divergent __syncthreads: threads wait at different barriers");
    b->site = site;
    b->pred_and &= pred != 0;
    b->pred_or |= pred != 0;
    b->pred_cnt += pred != 0;
    f->wait = BAR;
    if (++b->at_bar == b->alive) bar_release(b);
    to_main();
  }
  EMU_ACQ(&b->bar_tag);
  return 0;
}
template <class T>
T exchange(unsigned mask, const T& v, int (*src)(int, int, int), int arg, int width) {
  static_assert(sizeof(T) <= 16);
  Fiber* f = S.cur;
  Warp* w = f->warp;
  T r;
  if (!src) EMU_REL(&w->tag);  // only __syncwarp orders memory, a shuffle does not
  {
    EmuQuiet q;
    unsigned lane = f->lin & 31;
    if (!(mask >> lane & 1)) die("shuffle/syncwarp: calling lane is not in its own mask");
    if (mask & ~w->alive) die("shuffle/syncwarp: mask names lanes that have exited or do not exist");
    memcpy(f->val, &v, sizeof(T));
    f->src = src;
    f->arg = arg;
    f->width = width;
    f->wait = WARP;
    size_t i = 0;
    while (i < w->pend.size() && w->pend[i].first != mask) i++;
    if (i == w->pend.size()) w->pend.push_back({mask, 0});
    if ((w->pend[i].second |= 1u << lane) == mask) {
      w->pend.erase(w->pend.begin() + i);
      warp_release(w, mask);
    }
    to_main();
    memcpy(&r, f->res, sizeof(T));
  }
  if (!src) EMU_ACQ(&w->tag);
  return r;
}
inline int src_xor(int l, int a, int w) {
  int s = l ^ a;
  return s < (l / w + 1) * w ? s : -1;
}
inline int src_down(int l, int a, int w) { return (l % w) + a < w ? l + a : -1; }
inline int src_up(int l, int a, int w) { return (l % w) - a >= 0 ? l - a : -1; }
inline int src_idx(int l, int a, int w) { return l / w * w + ((a % w) + w) % w; }
template <class T, int ID>
struct Key {
  static inline char k;
};
template <class T, int ID>
T& smem() {
  EmuQuiet q;
  auto& p = S.cur->blk->shared[&Key<T, ID>::k];
  if (!p) {
    p = aligned_alloc(16, (sizeof(T) + 15) / 16 * 16);
    memset(p, 0xFF, sizeof(T));
  }  // poison: NaN / -1
  return *(T*)p;
}
inline void before_atomic(void* p) {
  if (S.yield_atomics) yield_now();
  if (S.cur->fenced) EMU_REL(p);
  (void)p;
}
inline void after_atomic(void* p) {
#if defined(__SANITIZE_THREAD__)
  EmuQuiet q;
  S.cur->seen.push_back(p);
#endif
  (void)p;
}
template <class T, class F>
T rmw(T* p, F f) {
  before_atomic(p);
  using U = std::conditional_t<sizeof(T) == 8, uint64_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;
  static_assert(sizeof(T) == sizeof(U));
  U o = __atomic_load_n((U*)p, __ATOMIC_RELAXED);
  T ov;
  memcpy(&ov, &o, sizeof(T));
  T nv = f(ov);
  U n;
  memcpy(&n, &nv, sizeof(T));
  __atomic_store_n((U*)p, n, __ATOMIC_RELAXED);  // one OS thread: no other RMW can come between
  after_atomic(p);
  return ov;
}
inline void fence() {
  Fiber* f = S.cur;
  f->fenced = true;
  for (void* p : f->seen) EMU_ACQ(p);
  (void)f;
  EmuQuiet q;
  f->seen.clear();
}

}  // namespace emu

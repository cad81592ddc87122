// cuda_emul.h - run CUDA C++ kernels as host C++ for functional tests. Own code.
// Every CUDA thread is a fiber; one OS thread schedules them in a seeded random order, with several
// blocks resident at once. Sanitizers see each fiber as a thread (TSan) / its own stack (ASan).
//   kernel code uses SMEM(T, name, [N]) / DYN_SMEM(T, name) for shared memory,
//   host code uses LAUNCH(kernel, grid, block, dyn_smem_bytes, stream, args...), whose value is a cudaError_t.
//   env: CUDA_EMUL_SEED (0 = round robin), CUDA_EMUL_RESIDENT (blocks in flight), CUDA_EMUL_YIELD=1 (switch at atomics)
#pragma once

#include <driver_types.h>

#include "cuda_emul_fibers.h"

namespace emu {
struct Launcher {
  const char* name;
  dim3 g, b;
  size_t dyn;
  cudaError_t run(std::function<void()> body) {
    if (S.cur || !S.ready.empty()) die("nested launch");
    size_t nt = (size_t)b.x * b.y * b.z, nb = (size_t)g.x * g.y * g.z;
    if (nt == 0 || nt > 1024 || nb == 0) {
      S.kernel = name;
      die("invalid launch configuration");
    }
    std::vector<std::unique_ptr<Block>> live;
    size_t next = 0;
    std::vector<Fiber*> freef;
    {
      EmuQuiet q;
      const char* e;
      uint64_t seed = (e = getenv("CUDA_EMUL_SEED")) ? strtoull(e, 0, 0) : 0;
      size_t res = (e = getenv("CUDA_EMUL_RESIDENT")) ? strtoul(e, 0, 0) : 4;
      S.yield_atomics = (e = getenv("CUDA_EMUL_YIELD")) && *e == '1';
      S.kernel = name;
      S.gdim = g;
      S.bdim = b;
      S.dyn_bytes = dyn;
      S.body = std::move(body);
      S.rng = seed * 0x9E3779B97F4A7C15ull + 1;
      S.switches = 0;
#if defined(__SANITIZE_THREAD__)
      S.tsan_main = __tsan_get_current_fiber();
#endif
      static std::vector<std::unique_ptr<Fiber>> pool;  // reused: stacks are kept
      while (pool.size() < nt * std::min(res, nb)) {
        pool.emplace_back(new Fiber);
        pool.back()->stack.reset(new char[stack_bytes()]);
      }
      for (auto& f : pool) freef.push_back(f.get());
      while (next < nb || !live.empty()) {
        while (next < nb && live.size() < res) start(next++, nt, freef, live);
        if (S.ready.empty()) stuck(live);
        size_t i = 0;
        if (seed) {
          S.rng ^= S.rng << 13;
          S.rng ^= S.rng >> 7;
          S.rng ^= S.rng << 17;
          i = S.rng % S.ready.size();
        } else {
          static size_t rr;
          i = rr++ % S.ready.size();
        }
        Fiber* f = S.ready[i];
        S.ready[i] = S.ready.back();
        S.ready.pop_back();
        Block* blk = f->blk;
        to_fiber(f);
        if (!blk->alive) finish(blk, freef, live);
      }
    }
    EMU_ACQ(&S);
    return cudaSuccess;
  }
  void start(size_t id, size_t nt, std::vector<Fiber*>& freef, std::vector<std::unique_ptr<Block>>& live) {
    auto blk = std::make_unique<Block>();
    Block* p = blk.get();
    p->idx = uint3{(unsigned)(id % g.x), (unsigned)(id / g.x % g.y), (unsigned)(id / g.x / g.y)};
    p->warps.resize((nt + 31) / 32);
    p->alive = nt;
    if (dyn) {
      p->dyn = aligned_alloc(16, (dyn + 15) / 16 * 16);
      memset(p->dyn, 0xFF, dyn);
    }
    for (size_t t = 0; t < nt; t++) {
      Fiber* f = freef.back();
      freef.pop_back();
      f->lin = t;
      f->tid = uint3{(unsigned)(t % b.x), (unsigned)(t / b.x % b.y), (unsigned)(t / b.x / b.y)};
      f->blk = p;
      f->warp = &p->warps[t / 32];
      f->warp->alive |= 1u << (t & 31);
      f->warp->lane[t & 31] = f;
      f->fenced = false;
      f->seen.clear();
      f->fake = nullptr;
#if defined(__SANITIZE_THREAD__)
      f->stack.reset(new char[stack_bytes()]);
      f->tsan = __tsan_create_fiber(0);  // fresh stack: no stale shadow
#endif
#ifdef EMU_UCONTEXT
      getcontext(&f->ctx);
      f->ctx.uc_stack.ss_sp = f->stack.get();
      f->ctx.uc_stack.ss_size = stack_bytes();
      f->ctx.uc_link = nullptr;
      makecontext(&f->ctx, entry, 0);
#else
      void** sp = (void**)(((uintptr_t)f->stack.get() + stack_bytes()) & ~(uintptr_t)15);
      *--sp = nullptr;
      *--sp = (void*)entry;
      for (int k = 0; k < 6; k++) *--sp = nullptr;
      f->ctx.sp = sp;
#endif
      p->fibers.push_back(f);
      make_ready(f);
    }
    live.push_back(std::move(blk));
  }
  void finish(Block* p, std::vector<Fiber*>& freef, std::vector<std::unique_ptr<Block>>& live) {
    for (Fiber* f : p->fibers) {
#if defined(__SANITIZE_THREAD__)
      __tsan_destroy_fiber(f->tsan);
#endif
      freef.push_back(f);
    }
    for (auto& s : p->shared) free(s.second);
    free(p->dyn);
    for (size_t i = 0; i < live.size(); i++)
      if (live[i].get() == p) {
        live.erase(live.begin() + i);
        break;
      }
  }
  [[noreturn]] void stuck(std::vector<std::unique_ptr<Block>>& live) {
    for (auto& p : live)
      for (Fiber* f : p->fibers)
        if (f->wait == BAR || f->wait == WARP) {
          fprintf(stderr, "cuda_emul: block %u thread %u waits at %s\n", p->idx.x, f->lin,
                  f->wait == BAR ? "__syncthreads" : "a warp operation");
          break;
        }
    die("deadlock: some threads wait for others that will not come");
  }
};
}  // namespace emu

#define threadIdx (emu::S.cur->tid)
#define blockIdx (emu::S.cur->blk->idx)
#define blockDim (emu::S.bdim)
#define gridDim (emu::S.gdim)
#define warpSize 32
#define SMEM(T, name, ...) auto& name = emu::smem<T __VA_ARGS__, __COUNTER__>()
#define DYN_SMEM(T, name) T* name = (T*)emu::S.cur->blk->dyn
#define LAUNCH(k, g, b, s, st, ...) emu::Launcher{#k, dim3(g), dim3(b), (size_t)(s)}.run([&] { k(__VA_ARGS__); })
__attribute__((noinline)) inline void __syncthreads() { emu::barrier(__builtin_return_address(0), 0); }
__attribute__((noinline)) inline int __syncthreads_or(int p) {
  emu::barrier(__builtin_return_address(0), p);
  return emu::S.cur->blk->res_or;
}
__attribute__((noinline)) inline int __syncthreads_and(int p) {
  emu::barrier(__builtin_return_address(0), p);
  return emu::S.cur->blk->res_and;
}
__attribute__((noinline)) inline int __syncthreads_count(int p) {
  emu::barrier(__builtin_return_address(0), p);
  return emu::S.cur->blk->res_cnt;
}
inline void __syncwarp(unsigned m = 0xffffffffu) { emu::exchange(m, 0, nullptr, 0, 32); }
template <class T>
T __shfl_xor_sync(unsigned m, T v, int a, int w = 32) {
  return emu::exchange(m, v, emu::src_xor, a, w);
}
template <class T>
T __shfl_down_sync(unsigned m, T v, unsigned a, int w = 32) {
  return emu::exchange(m, v, emu::src_down, (int)a, w);
}
template <class T>
T __shfl_up_sync(unsigned m, T v, unsigned a, int w = 32) {
  return emu::exchange(m, v, emu::src_up, (int)a, w);
}
template <class T>
T __shfl_sync(unsigned m, T v, int a, int w = 32) {
  return emu::exchange(m, v, emu::src_idx, a, w);
}
inline unsigned __ballot_sync(unsigned m, int p) {
  unsigned r = 0;
  for (int i = 0; i < 32; i++)
    if (m >> i & 1) r |= (unsigned)(emu::exchange(m, p != 0, emu::src_idx, i, 32)) << i;
  return r;  // slow but plain
}
inline int __any_sync(unsigned m, int p) { return __ballot_sync(m, p) != 0; }
inline int __all_sync(unsigned m, int p) { return __ballot_sync(m, p) == m; }
inline void __threadfence() { emu::fence(); }
inline void __threadfence_block() { emu::fence(); }
inline void __threadfence_system() { emu::fence(); }
template <class T>
T atomicAdd(T* p, T v) {
  return emu::rmw(p, [&](T o) { return (T)(o + v); });
}
template <class T>
T atomicExch(T* p, T v) {
  return emu::rmw(p, [&](T) { return v; });
}
template <class T>
T atomicMax(T* p, T v) {
  return emu::rmw(p, [&](T o) { return o > v ? o : v; });
}
template <class T>
T atomicMin(T* p, T v) {
  return emu::rmw(p, [&](T o) { return o < v ? o : v; });
}
template <class T>
T atomicCAS(T* p, T c, T v) {
  return emu::rmw(p, [&](T o) { return o == c ? v : o; });
}
inline unsigned atomicInc(unsigned* p, unsigned lim) {
  return emu::rmw(p, [&](unsigned o) { return o >= lim ? 0u : o + 1; });
}
template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
template <class T>
void __stcs(T* p, T v) {
  *p = v;
}
inline int min(int a, int b) { return a < b ? a : b; }

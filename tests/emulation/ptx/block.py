"""One PTX block: its threads, control flow and memory."""

import re
import struct

import numpy as np

from tests.emulation.ptx.types import BITS, NP, PARAM, Device, PtxError, U, split_operands
from tests.emulation.ptx.warp import Warp

# What an atomic leaves in its cell: of the old value, the operand and, for cas, the value to put.
ATOMIC = {
    "add": lambda old, b, c: old + b,
    "inc": lambda old, b, c: 0 if old >= b else old + 1,
    "dec": lambda old, b, c: b if old == 0 or old > b else old - 1,
    "min": lambda old, b, c: min(old, b),
    "max": lambda old, b, c: max(old, b),
    "exch": lambda old, b, c: b,
    "cas": lambda old, b, c: c if old == b else old,
    "and": lambda old, b, c: old & b,
    "or": lambda old, b, c: old | b,
    "xor": lambda old, b, c: old ^ b,
}


class Block(Warp):
    def __init__(s, k, dev, bid, grid, nt, args, dyn, gran, rng):
        s.k, s.dev, s.nt, s.gran, s.rng = k, dev, nt, gran, rng
        t = np.arange(nt, dtype=np.uint32)
        s.r = {n: np.zeros(nt, d) for n, d in k.regs.items()}

        def c(v):
            return np.full(nt, v, np.uint32)

        s.sp = {
            "%tid.x": t,
            "%tid.y": c(0),
            "%tid.z": c(0),
            "%ntid.x": c(nt),
            "%ntid.y": c(1),
            "%ntid.z": c(1),
            "%ctaid.x": c(bid),
            "%ctaid.y": c(0),
            "%ctaid.z": c(0),
            "%nctaid.x": c(grid),
            "%nctaid.y": c(1),
            "%nctaid.z": c(1),
            "%laneid": t & np.uint32(31),
            "%warpid": t >> np.uint32(5),
        }
        s.pm, at, s.psym = [], 0, {}  # parameter space: scalars and by-value structs (pass bytes)
        for (n, ty, size), a in zip(k.params, args, strict=False):
            raw = (
                bytes(a)
                if isinstance(a, (bytes, bytearray, np.ndarray))
                else struct.pack({"f32": "<f", "f64": "<d"}[ty], a)
                if ty in ("f32", "f64")
                else (int(a) & (2**64 - 1)).to_bytes(8, "little")[:size]
            )
            if len(raw) > size:
                raise PtxError(f"parameter {n} holds {size} bytes, {len(raw)} given")
            s.psym[n] = PARAM + at
            s.pm.append(raw.ljust(-(-size // 16) * 16, b"\0"))
            at += len(s.pm[-1])
        s.pm = np.frombuffer(b"".join(s.pm) or b"\0", np.uint8)
        s.pok = np.full(s.pm.size, 3, np.uint8)
        s.sh = np.full(k.shared_size + dyn, 0xFF, np.uint8)
        s.shok = np.ones(s.sh.size, np.uint8)
        s.sym = dict(k.shared)
        if k.extern:
            s.sym[k.extern] = k.shared_size
        s.pc = np.zeros(nt, np.int64)
        s.wait = np.zeros(nt, bool)
        s.done = np.zeros(nt, bool)
        s.lane = t & 31
        s.warp = (t >> 5).astype(np.int64)

    def run(s):
        ins, n = s.k.ins, 0
        with np.errstate(all="ignore"):
            while not s.done.all():
                ready = ~(s.wait | s.done)
                if not ready.any():
                    s.wait[:] = False
                    continue  # every live thread is at the barrier
                if s.gran == "warp":
                    ready &= s.warp == s.rng.choice(np.unique(s.warp[ready]))
                pc = s.pc[ready].min()
                m = ready & (s.pc == pc)
                n += int(m.sum())
                if pc >= len(ins):
                    s.done |= m
                    continue
                i = ins[pc]
                s.pc[m] = pc + 1
                if i.pred:
                    p = s.r[i.pred]
                    m = m & (~p if i.neg else p)
                if m.any() or i.op == "shfl":
                    try:
                        i.fn(s, i, m)
                    except PtxError as e:
                        raise PtxError(f"{e} | kernel {s.k.name}, block {s.sp['%ctaid.x'][0]}: {i.text}") from None
        return n

    def op_bra(s, i, m):
        s.pc[m] = s.k.labels[i.args[0]]

    def op_brx(s, i, m):
        targets = np.array([s.k.labels[t] for t in s.k.tables[i.args[1]]])
        s.pc[m] = targets[s.val(i.args[0], "u32")[m]]

    def op_ret(s, i, m):
        s.done |= m

    op_exit = op_ret

    def op_trap(s, i, m):
        raise PtxError("trap")

    def op_membar(s, i, m):
        pass

    op_fence = op_nop = op_prefetch = op_griddepcontrol = op_membar

    def op_bar(s, i, m):
        if "warp" not in i.mods:
            s.wait |= m

    op_barrier = op_bar

    def addr(s, a, shared):
        q = re.match(r"\[\s*([%\w$]+)\s*(?:\+\s*(-?\d+))?\s*\]", a)
        b = (
            s.val(q[1], "u32").astype(np.int64)
            if (q[1] in s.sym or (q[1] in s.r and s.r[q[1]].dtype == np.uint32))
            else s.val(q[1], "u64").astype(np.int64)
        )
        return b + int(q[2] or 0)

    def access(s, i, m, a, nbytes, write):
        ad = a[m]
        shared = "shared" in i.mods or (
            not any(x in i.mods for x in ("global", "param", "local")) and (ad < 1 << 24).all()
        )
        param = not shared and ((ad >= PARAM) & (ad < PARAM + s.pm.size)).all()
        if param and write:
            raise PtxError("write to parameter space")
        if not shared:
            ad = ad - (PARAM if param else Device.BASE)
        mem, ok = (s.pm, s.pok) if param else (s.sh, s.shok) if shared else (s.dev.mem, s.dev.ok)

        def refuse(wrong, what):
            if wrong.any():
                thread = np.flatnonzero(m)[np.flatnonzero(wrong)[0]]
                raise PtxError(f"{what}, thread {thread}, address {ad[wrong][0]:#x}")

        space = "shared" if shared else "global"
        refuse(ad % nbytes != 0, f"{space} misaligned access")
        refuse((ad < 0) | (ad + nbytes > mem.size), f"{space} out of range access")
        need = 1 if write or shared else 3
        for e in {0, nbytes - 1}:
            verb = "write" if write else "read"
            refuse((ok[ad + e] & need) != need, f"{verb} outside a buffer or of bytes never written")
        return ad, mem, ok

    def vec(s, i):
        return next((int(x[1:]) for x in i.mods if x in ("v2", "v4", "v8")), 1)

    def op_ld(s, i, m):
        t = s.typ(i)
        w = BITS[t] // 8
        d, a = i.args[:2]  # a third is a cache policy
        n = s.vec(i)
        regs = split_operands(d[1:-1]) if d[0] == "{" else [d]
        A = s.addr(a, "shared" in i.mods)
        ad, mem, _ = s.access(i, m, A, w * n, False)
        for j, r in enumerate(regs):
            v = np.zeros(s.nt, U[w * 8])
            v[m] = mem[(ad + j * w)[:, None] + np.arange(w)].view(U[w * 8])[:, 0]
            s.set(r, v.view(NP[t]) if t[0] == "s" else v, m)

    op_ldu = op_ld

    def op_st(s, i, m):
        t = s.typ(i)
        w = BITS[t] // 8
        n = s.vec(i)
        a, d = i.args[:2]
        regs = split_operands(d[1:-1]) if d[0] == "{" else [d]
        A = s.addr(a, "shared" in i.mods)
        ad, mem, ok = s.access(i, m, A, w * n, True)
        for j, r in enumerate(regs):
            v = np.ascontiguousarray(s.val(r, f"u{w * 8}")[m])
            x = (ad + j * w)[:, None] + np.arange(w)
            mem[x] = v.view(np.uint8).reshape(-1, w)
            ok[x] |= 2

    def op_atom(s, i, m, ret=True):
        t = s.typ(i)
        w = BITS[t] // 8
        args = i.args if ret else ["_", *i.args]
        o = next(x for x in i.mods if x in ATOMIC)
        A = s.addr(args[1], "shared" in i.mods)
        ad, mem, _ = s.access(i, m, A, w, False)
        B = s.val(args[2], t)
        C = s.val(args[3], t) if o == "cas" else None
        out = np.zeros(s.nt, NP[t])
        th = np.flatnonzero(m)
        q = s.rng.permutation(len(th))
        for j in q:
            x, k = ad[j], th[j]
            cell = mem[x : x + w].view(NP[t])
            old = cell[0]
            b = B[k]
            out[k] = old
            cell[0] = ATOMIC[o](old, b, C[k] if o == "cas" else None)
        if ret:
            s.set(args[0], out, m)

    def op_red(s, i, m):
        s.op_atom(i, m, False)

"""What ptxemu shares: types, conversions, device memory."""

import numpy as np


class PtxError(Exception):
    pass


PARAM = 1 << 40  # where parameter space starts among generic addresses
U = {8: np.uint8, 16: np.uint16, 32: np.uint32, 64: np.uint64}
NP = {"f16": np.float16, "f32": np.float32, "f64": np.float64, "pred": np.bool_, "bf16": np.uint16}
for _b in (8, 16, 32, 64):
    NP[f"u{_b}"] = NP[f"b{_b}"] = U[_b]
    NP[f"s{_b}"] = getattr(np, f"int{_b}")
BITS = {t: np.dtype(d).itemsize * 8 for t, d in NP.items()}
BITS["pred"] = 1

NP["f32x2"], NP["f16x2"], NP["bf16x2"] = np.float32, np.float16, np.uint16
BITS["f32x2"], BITS["f16x2"], BITS["bf16x2"] = 64, 32, 32  # packed pairs: arrays of shape (threads, 2)


def bf16_to_f32(a):
    return (a.astype(np.uint32) << np.uint32(16)).view(np.float32)


def f32_to_bf16(a):
    u = np.ascontiguousarray(a, np.float32).view(np.uint32)
    r = ((u.astype(np.uint64) + 0x7FFF + ((u >> np.uint32(16)) & np.uint32(1))) >> np.uint64(16)).astype(np.uint16)
    return np.where(np.isnan(a), np.uint16(0x7FFF), r)


class Device:
    BASE, GAP = 0x7F0000000000, 256

    def __init__(self, mbytes=64):
        self.mem = np.full(mbytes << 20, 0xCD, np.uint8)
        self.ok = np.zeros(mbytes << 20, np.uint8)  # 1 allocated, 3 written
        self.top = self.GAP
        self.bufs = {}

    def alloc(self, nbytes, offset=0):
        a = (self.top + 255) // 256 * 256 + offset
        self.top = a + nbytes + self.GAP
        if self.top > self.mem.size:
            raise PtxError("out of device memory")
        self.ok[a : a + nbytes] = 1
        return self.BASE + a

    def put(self, arr, offset=0):
        arr = np.ascontiguousarray(arr)
        p = self.alloc(arr.nbytes, offset)
        a = p - self.BASE
        self.mem[a : a + arr.nbytes] = arr.reshape(-1).view(np.uint8)
        self.ok[a : a + arr.nbytes] = 3
        return p

    def get(self, p, dtype, n):
        a = p - self.BASE
        return self.mem[a : a + n * np.dtype(dtype).itemsize].view(dtype).copy()


def split_operands(s):
    out, depth, cur = [], 0, ""
    for c in s:
        depth += (c in "{[(") - (c in "}])")
        if c == "," and depth == 0:
            out.append(cur.strip())
            cur = ""
        else:
            cur += c
    if cur.strip():
        out.append(cur.strip())
    return out

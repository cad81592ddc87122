"""What the threads of a PTX warp do together: shuffles, votes, reductions, matrices of 8 x 8 halves."""

import numpy as np

from tests.emulation.ptx.alu import Alu
from tests.emulation.ptx.types import NP, PtxError, split_operands


class Warp(Alu):
    def whole(s, m, mask, what):
        """The lanes named in the mask have to be here."""
        full = np.zeros(-(-s.nt // 32), np.uint32)
        np.bitwise_or.at(full, s.warp[m], np.uint32(1) << s.lane[m])
        if ((mask & ~full[s.warp])[m] != 0).any():
            raise PtxError(f"{what}: lanes named in the mask are not here (divergence)")

    def op_shfl(s, i, m):
        if not m.any():
            return
        d, p = [*i.args[0].split("|"), None][:2]
        b, c = s.val(i.args[2], "u32").astype(np.int64), s.val(i.args[3], "u32").astype(np.int64)
        mem = s.val(i.args[4], "u32") if len(i.args) > 4 else np.full(s.nt, 2**32 - 1, np.uint32)
        s.whole(m, mem, "shfl.sync")
        lane = s.lane.astype(np.int64)
        seg = (c >> 8) & 31
        cl = c & 31
        hi = (lane & seg) | (cl & ~seg)
        lo = lane & seg
        b = b & 31
        k = i.mods[1]
        j = {"up": lane - b, "down": lane + b, "bfly": lane ^ b, "idx": lo | (b & ~seg)}[k]
        ok = (j >= hi) if k == "up" else (j <= hi)
        j = np.where(ok, j, lane)
        v = s.val(i.args[1], "b32")
        s.set(d, v[np.minimum(s.warp * 32 + j, s.nt - 1)], m)
        if p:
            s.set(p, ok, m)

    def op_vote(s, i, m):
        v = s.val(i.args[1], "pred") & m
        o = np.zeros(-(-s.nt // 32), np.uint32)
        np.bitwise_or.at(o, s.warp[v], np.uint32(1) << s.lane[v])
        a = np.zeros_like(o)
        np.bitwise_or.at(a, s.warp[m], np.uint32(1) << s.lane[m])
        s.set(
            i.args[0],
            {"ballot": o[s.warp], "any": o[s.warp] != 0, "all": o[s.warp] == a[s.warp]}[
                next(x for x in i.mods if x in ("ballot", "any", "all"))
            ],
            m,
        )

    def op_redux(s, i, m):
        t = s.typ(i)
        f = {"max": np.maximum, "min": np.minimum, "add": np.add}[next(x for x in i.mods if x in ("max", "min", "add"))]
        s.whole(m, s.val(i.args[2], "u32"), "redux.sync")
        v = s.val(i.args[1], t).reshape(-1, 32)
        s.set(i.args[0], np.repeat(f.reduce(v, axis=1).astype(NP[t]), 32), m)

    def rows_of(s, i, m, a):
        """Where the halves of each thread lie: thread 8k + r names row r of matrix k; register k of a thread holds
        two neighbours of row lane / 4, or of a column."""
        count = int(next(x for x in i.mods if x[0] == "x" and x[1:].isdigit())[1:])
        if "m8n8" not in i.mods or not m.reshape(-1, 32).all(axis=1)[s.warp[m]].all():
            raise PtxError("matrices of another shape, or a warp that is not whole")
        first = s.addr(a, True).reshape(-1, 32)[s.warp]
        row, column = s.lane // 4, 2 * (s.lane % 4)
        for k in range(count):
            for half in (0, 1):
                r, c = (column + half, row) if "trans" in i.mods else (row, column + half)
                yield k, half, first[np.arange(s.nt), 8 * k + r] + 2 * c

    def op_ldmatrix(s, i, m):
        regs = split_operands(i.args[0][1:-1])
        found = [np.zeros(s.nt, np.uint32) for _ in regs]
        for k, half, at in s.rows_of(i, m, i.args[1]):
            ad, mem, _ = s.access(i, m, at, 2, False)
            found[k][m] |= mem[ad[:, None] + np.arange(2)].view(np.uint16)[:, 0].astype(np.uint32) << (16 * half)
        for r, v in zip(regs, found, strict=True):
            s.set(r, v, m)

    def op_stmatrix(s, i, m):
        given = [s.val(r, "u32") for r in split_operands(i.args[1][1:-1])]
        for k, half, at in s.rows_of(i, m, i.args[0]):
            ad, mem, ok = s.access(i, m, at, 2, True)
            x = ad[:, None] + np.arange(2)
            mem[x] = (given[k][m] >> (16 * half)).astype(np.uint16).view(np.uint8).reshape(-1, 2)
            ok[x] |= 2

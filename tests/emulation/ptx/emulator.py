"""ptxemu - run PTX (as nvcc or Triton emit it) on the CPU with NumPy, for functional tests. Own code.

One block at a time; all its threads are array lanes. Divergence: the lowest program counter runs first
(gran='block': the whole block in step; gran='warp': a warp picked at random, which shows missing barriers).
Global memory is an arena with gaps between buffers: reads and writes outside a buffer, misaligned ones and reads
of bytes never written raise PtxError. Not modelled: memory ordering, caches, async copies, mma, textures."""

import re

import numpy as np

from tests.emulation.ptx.block import Block
from tests.emulation.ptx.types import BITS, Device, PtxError, U, split_operands

__all__ = ["Device", "Module", "PtxError"]


class Ins:
    __slots__ = ("args", "fn", "line", "mods", "neg", "op", "pred", "text")


class Kernel:
    def __init__(self, mod, name, params, body):
        self.name, self.regs, self.ins, self.labels, self.shared, self.params = name, {}, [], {}, dict(mod.shared), []
        self.shared_size = mod.shared_size
        self.extern = mod.extern
        self.tables, label = {}, ""  # of jumps
        for p in split_operands(params):
            m = re.search(r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+).*?([\w$]+)\s*(?:\[(\d+)\])?$", p.strip())
            self.params.append((m[2], m[1], int(m[3] or 1) * BITS[m[1]] // 8))
        body = re.sub(r"\.branchtargets[^;]*;", lambda m: " ".join(m[0].split()), body)
        stack = re.sub(
            r"([{};]|(?<!:):(?!:))", r"\1\n", re.sub(r"\{([^{};]*)\}", r"<\1>", body)
        )  # {a,b} vectors -> <a,b>; then one statement per line
        for st in stack.split("\n"):
            st = st.strip().rstrip(";").strip()
            if not st or st in "{}" or st.startswith((".loc", ".pragma", ".file")):
                continue
            if st.endswith(":"):
                label = st[:-1].strip()
                self.labels[label] = len(self.ins)
                continue
            if st.startswith(".branchtargets"):
                self.tables[label] = split_operands(st.split(None, 1)[1])
                continue
            if st.startswith(".reg"):
                m = re.match(r"\.reg\s+\.(\w+)\s+(.*)", st)
                for r in m[2].split(","):
                    q = re.match(r"\s*(%?[\w$]+?)(?:<(\d+)>)?\s*$", r)
                    for n in [q[1] + str(i) for i in range(int(q[2]))] if q[2] else [q[1]]:
                        self.regs[n] = np.bool_ if m[1] == "pred" else U[BITS[m[1]]]
                continue
            if st.startswith((".shared", ".local")):
                mod.decl_shared(st, self)
                continue
            if st.startswith("."):
                raise PtxError(f"directive {st}")
            i = Ins()
            m = re.match(r"(?:@(!?)(%[\w$]+)\s+)?([a-z][\w]*)((?:(?:\.|::)[\w]+)*)\s*(.*)$", st, re.S)
            i.neg, i.pred, i.op, i.mods, i.text = bool(m[1]), m[2], m[3], m[4].strip(".").split("."), st
            i.args = split_operands(m[5].replace("<", "{").replace(">", "}"))
            i.fn = getattr(Block, "op_" + i.op, None)
            if i.fn is None:
                raise PtxError(f"no opcode {i.op}: {st}")
            self.ins.append(i)


class Module:
    def __init__(self, text):
        self.shared, self.shared_size, self.extern, self.kernels = {}, 0, None, {}
        text = re.sub(r"/\*.*?\*/", "", re.sub(r"//.*", "", text).replace("::cta", ""), flags=re.S)
        text = re.sub(r"\.section\s+\.debug\w*\s*\{[^{}]*\}", "", text)
        text = re.sub(r"^\s*\.(loc|file)\b.*$", "", text, flags=re.M)
        for m in re.finditer(r"^\s*(\.extern\s+)?(?:\.visible\s+)?(\.shared[^;]*);", text[:], re.M):
            if text[: m.start()].count("{") == text[: m.start()].count("}"):
                self.decl_shared(m[2], self)
        for m in re.finditer(r"\.entry\s+([\w$]+)\s*\(([^)]*)\)", text):
            k = text.index("{", m.end())
            d = 0
            for j in range(k, len(text)):
                d += (text[j] == "{") - (text[j] == "}")
                if d == 0:
                    break
            self.kernels[m[1]] = Kernel(self, m[1], m[2], text[k + 1 : j])

    def decl_shared(self, st, owner):
        m = re.match(r"\.shared\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)\s*((?:\[\d*\])?)", st)
        if not m:
            raise PtxError(f"cannot declare {st}")
        al = int(m[1] or 16)
        owner.shared_size = (owner.shared_size + al - 1) // al * al
        owner.shared[m[3]] = owner.shared_size
        if m[4] == "[]":
            owner.extern = m[3]
        else:
            owner.shared_size += (int(m[4][1:-1]) if m[4] else 1) * BITS[m[2]] // 8

    def launch(self, dev, name, grid, block, args, dyn_shared=0, gran="block", seed=0):
        k = self.kernels[name]
        rng = np.random.default_rng(seed)
        n = 0
        args = list(args) + [0] * (len(k.params) - len(args))  # Triton's scratch pointers
        order = rng.permutation(grid) if seed else range(grid)
        for b in order:
            n += Block(k, dev, int(b), grid, block, args, dyn_shared, gran, rng).run()
        return n

"""Serving as vLLM does it: keys and values in pages, block tables, batches that change at every step, decode captured as graphs.

The model is two layers of random weights; what counts is how it reaches the device.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from harness import Skip
from torch_case import DEVICE, need_gpu, synchronize, to_bytes, torch_register

try:
    import triton
    import triton.language as tl
except ModuleNotFoundError:
    triton = None

CASES, case = torch_register()
VOCABULARY, HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD = 512, 256, 2, 8, 2, 32
PAGE, PAGES, TABLE = 16, 17, 5  # tokens of a page; pages in all, of which the first is never a request's; pages of a request
BATCHES = (1, 2, 4, 8)

if triton:

    @triton.jit
    def write_pages(key, value, keys, values, slots, ROW: tl.constexpr):
        """A token's key and value go to its slot; a slot below zero is padding."""
        token = tl.program_id(0)
        slot = tl.load(slots + token)
        if slot >= 0:
            column = tl.arange(0, ROW)
            tl.store(keys + slot * ROW + column, tl.load(key + token * ROW + column))
            tl.store(values + slot * ROW + column, tl.load(value + token * ROW + column))

    @triton.jit
    def read_pages(out, query, keys, values, tables, lengths, scale, TABLE: tl.constexpr, HEADS: tl.constexpr, KV_HEADS: tl.constexpr,
                   HEAD: tl.constexpr, PAGE: tl.constexpr):
        """Attention of one new token and one head over the pages of its request, page by page."""
        row, head = tl.program_id(0), tl.program_id(1)
        column, position = tl.arange(0, HEAD), tl.arange(0, PAGE)
        length = tl.load(lengths + row)
        q = tl.load(query + (row * HEADS + head) * HEAD + column).to(tl.float32) * scale
        best, total, mixed = -1.0e30, 0.0, tl.zeros([HEAD], tl.float32)
        for index in range(0, tl.cdiv(length, PAGE)):
            page = tl.load(tables + row * TABLE + index)
            place = ((page * PAGE + position[:, None]) * KV_HEADS + head // (HEADS // KV_HEADS)) * HEAD + column[None, :]
            score = tl.sum(tl.load(keys + place).to(tl.float32) * q[None, :], 1)
            score = tl.where(index * PAGE + position < length, score, -1.0e30)
            higher = tl.maximum(best, tl.max(score, 0))
            weight, fade = tl.exp(score - higher), tl.exp(best - higher)
            total = total * fade + tl.sum(weight, 0)
            mixed = mixed * fade + tl.sum(weight[:, None] * tl.load(values + place).to(tl.float32), 0)
            best = higher
        tl.store(out + (row * HEADS + head) * HEAD + column, (mixed / total).to(out.dtype.element_ty))


@dataclass
class Request:
    tokens: list[int]
    wanted: int
    pages: list[int] = field(default_factory=list)

    def slots(self, positions) -> list[int]:
        return [self.pages[p // PAGE] * PAGE + p % PAGE for p in positions]


class Batch:
    """The inputs of a decode step, at addresses that stay, so that a graph can read them."""

    def __init__(self, size: int):
        whole = lambda *shape: torch.zeros(shape, dtype=torch.int64, device=DEVICE)
        self.ids, self.positions, self.slots, self.lengths, self.tables = whole(size), whole(size), whole(size), whole(size), whole(size, TABLE)
        self.chosen, self.graph = None, None

    def fill(self, requests: list[Request]) -> None:
        """Rows beyond the requests are padding: one token of the page that belongs to nobody."""
        rows = [(r.tokens[-1], len(r.tokens) - 1, *r.slots([len(r.tokens) - 1]), len(r.tokens), (r.pages + [0] * TABLE)[:TABLE]) for r in requests]
        rows += [(0, 0, -1, 1, [0] * TABLE)] * (len(self.ids) - len(rows))
        for buffer, values in zip((self.ids, self.positions, self.slots, self.lengths, self.tables), zip(*rows)):
            buffer.copy_(torch.tensor(values))


class Engine:
    def __init__(self, in_triton: bool, graphs: bool = False):
        if in_triton and triton is None:
            raise Skip("triton is not installed")
        dtype = torch.bfloat16 if DEVICE == "cuda" else torch.float32
        weight = lambda *shape: (torch.randn(shape) * shape[-1] ** -0.5).to(DEVICE, dtype)
        self.in_triton = in_triton
        self.embedding, self.places = weight(VOCABULARY, HIDDEN), weight(TABLE * PAGE, HIDDEN)
        rows = (HEADS + 2 * KV_HEADS) * HEAD
        self.layers = [(weight(rows, HIDDEN), weight(HIDDEN, HEADS * HEAD), weight(1024, HIDDEN), weight(HIDDEN, 1024)) for _ in range(LAYERS)]
        self.keys, self.values = (torch.zeros(LAYERS, PAGES * PAGE, KV_HEADS, HEAD, device=DEVICE, dtype=dtype) for _ in range(2))
        self.batches = {size: Batch(size) for size in BATCHES}
        if graphs:
            for batch in self.batches.values():
                self.capture(batch)
        self.reset()

    def reset(self) -> None:
        self.keys.zero_(), self.values.zero_()
        self.free = list(range(PAGES - 1, 0, -1))

    def capture(self, batch: Batch) -> None:
        """The batch's step as a graph with a memory pool of its own."""
        batch.fill([])
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                self.decode(batch)
        torch.cuda.current_stream().wait_stream(side)
        batch.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(batch.graph, pool=torch.cuda.graph_pool_handle()):
            self.decode(batch)

    def reserve(self, request: Request) -> bool:
        """Pages for every token that the request has; false where none is left."""
        missing = -(-len(request.tokens) // PAGE) - len(request.pages)
        if missing > len(self.free):
            return False
        request.pages += [self.free.pop() for _ in range(missing)]
        return True

    def release(self, request: Request) -> None:
        self.free += reversed(request.pages)
        request.pages = []

    def forward(self, ids, positions, attend):
        x = self.embedding[ids] + self.places[positions]
        for number, (qkv, out, up, down) in enumerate(self.layers):
            q, k, v = F.linear(F.rms_norm(x, (HIDDEN,)), qkv).split((HEADS * HEAD, KV_HEADS * HEAD, KV_HEADS * HEAD), -1)
            heads = attend(number, q.reshape(-1, HEADS, HEAD), k.reshape(-1, KV_HEADS, HEAD), v.reshape(-1, KV_HEADS, HEAD))
            x = x + F.linear(heads.reshape(-1, HEADS * HEAD), out)
            x = x + F.linear(F.silu(F.linear(F.rms_norm(x, (HIDDEN,)), up)), down)
        return F.linear(F.rms_norm(x, (HIDDEN,)), self.embedding)

    def write(self, number, k, v, slots) -> None:
        if self.in_triton:
            write_pages[(len(k),)](k.contiguous(), v.contiguous(), self.keys[number], self.values[number], slots, ROW=KV_HEADS * HEAD)
        else:
            slots = slots.clamp(min=0)  # padding goes to the page that belongs to nobody
            self.keys[number][slots], self.values[number][slots] = k, v

    def prefill(self, request: Request) -> None:
        count = len(request.tokens)
        slots = torch.tensor(request.slots(range(count)), device=DEVICE)

        def attend(number, q, k, v):
            self.write(number, k, v, slots)
            q, k, v = (t.transpose(0, 1)[None] for t in (q, k, v))
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)[0].transpose(0, 1)

        logits = self.forward(torch.tensor(request.tokens, device=DEVICE), torch.arange(count, device=DEVICE), attend)
        request.tokens.append(int(logits[-1].argmax()))

    def decode(self, batch: Batch) -> None:
        def attend(number, q, k, v):
            self.write(number, k, v, batch.slots)
            if self.in_triton:
                out = q.new_empty(q.shape)
                read_pages[(len(q), HEADS)](out, q.contiguous(), self.keys[number], self.values[number], batch.tables, batch.lengths, HEAD ** -0.5,
                                            TABLE=TABLE, HEADS=HEADS, KV_HEADS=KV_HEADS, HEAD=HEAD, PAGE=PAGE)
                return out
            k, v = (cache[number].view(PAGES, PAGE, KV_HEADS, HEAD)[batch.tables].flatten(1, 2).transpose(1, 2) for cache in (self.keys, self.values))
            seen = torch.arange(TABLE * PAGE, device=DEVICE)[None] < batch.lengths[:, None]
            return F.scaled_dot_product_attention(q[:, :, None], k, v, attn_mask=seen[:, None, None], enable_gqa=True)

        batch.chosen = self.forward(batch.ids, batch.positions, attend).argmax(-1)

    def step(self, requests: list[Request]) -> None:
        batch = self.batches[next(size for size in BATCHES if size >= len(requests))]
        batch.fill(requests)
        if batch.graph:
            batch.graph.replay()
        else:
            self.decode(batch)
        for request, token in zip(requests, batch.chosen.tolist()):
            request.tokens.append(token)


@torch.no_grad()
def serve(engine: Engine) -> list[list[int]]:
    """Ten requests by continuous batching; where pages run out the youngest gives its own up and starts over later."""
    draw = random.Random(7)
    requests = [Request([draw.randrange(VOCABULARY) for _ in range(draw.randrange(5, 45))], draw.randrange(4, 30)) for _ in range(10)]
    ends = {id(r): len(r.tokens) + r.wanted for r in requests}
    waiting, running = deque(requests), []
    engine.reset()
    while waiting or running:
        while waiting and len(running) < BATCHES[-1] and engine.reserve(waiting[0]):
            running.append(waiting.popleft())
            engine.prefill(running[-1])
        served = 0
        while served < len(running):
            if engine.reserve(running[served]):
                served += 1
            else:
                engine.release(running[-1])
                waiting.appendleft(running.pop())
        if running:
            engine.step(running)
        for request in [r for r in running if len(r.tokens) >= ends[id(r)]]:
            engine.release(request)
            running.remove(request)
    assert sorted(engine.free) == list(range(1, PAGES)), "every page came back"
    return [request.tokens for request in requests]


def steps(engine: Engine):
    return lambda: (*serve(engine), engine.keys.clone(), engine.values.clone())


@case
def paged_attention():
    """Paged KV cache in PyTorch: written by index_put, read by block tables, continuous batching"""
    return steps(Engine(in_triton=False))


@case
def paged_attention_triton():
    """Paged KV cache in Triton kernels, continuous batching"""
    return steps(Engine(in_triton=True))


@case
def paged_attention_graphs():
    """Paged KV cache in Triton kernels, decode as CUDA graphs with a pool per batch size"""
    need_gpu()
    torch.manual_seed(5)
    plain = serve(Engine(in_triton=True))
    torch.manual_seed(5)
    engine = Engine(in_triton=True, graphs=True)
    assert serve(engine) == plain, "graphs and eager launches choose the same tokens"
    return steps(engine)

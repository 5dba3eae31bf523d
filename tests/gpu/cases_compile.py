"""What compiles, captures or observes: torch.compile in its modes, Triton kernels, CUDA graphs, the profiler, memory snapshots, NVTX."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import pickle
import tempfile
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

from harness import Skip, note, register
from torch_case import DEVICE, need_gpu, seeded, synchronize, to_bytes

try:
    import triton
    import triton.language as tl
except ModuleNotFoundError:
    triton = None


def prepare() -> None:
    seeded()
    torch._dynamo.reset()


CASES, case = register(prepare)


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.LayerNorm(512), nn.Linear(512, 256), nn.Softmax(-1)).to(DEVICE, torch.bfloat16).eval()


def inference(**options):
    compiled, x = torch.compile(network(), **options), torch.randn(64, 256, device=DEVICE, dtype=torch.bfloat16)

    @torch.no_grad()
    def step():
        torch.compiler.cudagraph_mark_step_begin()
        # A graph's next replay writes over what this one returned.
        return compiled(x).clone()

    return step


@case
def compile_default():
    """torch.compile: default mode"""
    return inference()


@case
def compile_reduce_overhead():
    """torch.compile: reduce-overhead (CUDA graphs)"""
    return inference(mode="reduce-overhead")


@case
def compile_max_autotune():
    """torch.compile: max-autotune (kernels timed, CUDA graphs)"""
    return inference(mode="max-autotune")


@case
def compile_max_autotune_no_cudagraphs():
    """torch.compile: max-autotune-no-cudagraphs"""
    return inference(mode="max-autotune-no-cudagraphs")


@case
def compile_dynamic_shapes():
    """torch.compile: one program for batches of every size"""
    compiled, x = torch.compile(network(), dynamic=True), torch.randn(64, 256, device=DEVICE, dtype=torch.bfloat16)
    return torch.no_grad()(lambda: [compiled(x[:size]) for size in (2, 5, 17, 64)])


@case
def compile_training():
    """torch.compile: forward, backward and optimizer"""
    net = nn.Sequential(nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 16)).to(DEVICE)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    x, y = torch.randn(64, 128, device=DEVICE), torch.randint(0, 16, (64,), device=DEVICE)
    loss_of = torch.compile(lambda: F.cross_entropy(net(x), y))

    def step():
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        optimizer.step()
        return loss, *net.parameters()

    return step


if triton:

    @triton.jit
    def softmax_rows(out, x, columns, WIDTH: tl.constexpr):
        row, column = tl.program_id(0), tl.arange(0, WIDTH)
        values = tl.load(x + row * columns + column, mask=column < columns, other=-float("inf"))
        values = tl.exp(values - tl.max(values, 0))
        tl.store(out + row * columns + column, values / tl.sum(values, 0), mask=column < columns)

    @triton.autotune([triton.Config({"M": m, "N": n, "K": 32}, num_warps=w, num_stages=s) for m, n, w, s in ((32, 32, 2, 2), (64, 64, 4, 3), (128, 64, 8, 2))],
                     key=["size"])
    @triton.jit
    def multiply(out, a, b, size, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr):
        row, column = tl.program_id(0) * M + tl.arange(0, M), tl.program_id(1) * N + tl.arange(0, N)
        total = tl.zeros([M, N], tl.float32)
        for start in range(0, size, K):
            inner = start + tl.arange(0, K)
            total = tl.dot(tl.load(a + row[:, None] * size + inner[None, :]), tl.load(b + inner[:, None] * size + column[None, :]), total)
        tl.store(out + row[:, None] * size + column[None, :], total)

    @triton.jit
    def count(bins, total, x, size, WIDTH: tl.constexpr):
        place = tl.program_id(0) * WIDTH + tl.arange(0, WIDTH)
        value = tl.load(x + place, mask=place < size, other=0)
        tl.atomic_add(bins + value, 1, mask=place < size)
        tl.atomic_max(total, tl.max(value, 0))


def need_triton() -> None:
    need_gpu()
    if triton is None:
        raise Skip("triton is not installed")


@case
def triton_softmax():
    """Triton: softmax"""
    need_triton()
    x = torch.randn(512, 1000, device=DEVICE)

    def step():
        out = torch.empty_like(x)
        softmax_rows[(len(x),)](out, x, x.shape[1], WIDTH=1024)
        torch.testing.assert_close(out, x.softmax(-1))
        return out

    return step


@case
def triton_autotuned_matmul():
    """Triton: matrix product (tl.dot), its shape chosen by timing in this process"""
    need_triton()
    # Small whole numbers: every order of summation gives the same bits, so the choice does not show.
    a, b = (torch.randint(-4, 5, (512, 512), device=DEVICE).half() for _ in range(2))
    want = (a.double() @ b.double()).float()

    def step():
        out = torch.empty(512, 512, device=DEVICE)
        multiply[lambda chosen: (512 // chosen["M"], 512 // chosen["N"])](out, a, b, 512)
        assert torch.equal(out, want)
        return out

    return step


@case
def triton_atomics():
    """Triton: histogram and maximum by atomics"""
    need_triton()
    x = torch.randint(0, 64, (100_000,), device=DEVICE, dtype=torch.int32)

    def step():
        bins, largest = torch.zeros(64, device=DEVICE, dtype=torch.int32), torch.zeros(1, device=DEVICE, dtype=torch.int32)
        count[(-(-len(x) // 1024),)](bins, largest, x, len(x), WIDTH=1024)
        assert torch.equal(bins.long(), torch.bincount(x, minlength=64))
        return bins, largest

    return step


@case
def graphed_callables():
    """torch.cuda.make_graphed_callables: forward and backward as graphs"""
    need_gpu()
    net, x, target = nn.Sequential(nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 8)).cuda(), torch.randn(32, 64, device=DEVICE), torch.randn(32, 8, device=DEVICE)
    graphed = torch.cuda.make_graphed_callables(net, (torch.randn_like(x),))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)

    def step():
        optimizer.zero_grad()
        loss = F.mse_loss(graphed(x), target)
        loss.backward()
        optimizer.step()
        return loss, *net.parameters()

    return step


@case
def graphs_that_share_a_pool():
    """torch.cuda.graph: two graphs in one private pool, random numbers inside"""
    need_gpu()
    x = torch.randn(64, 64, device=DEVICE)
    pool, first, second = torch.cuda.graph_pool_handle(), torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    begin, end = lambda: F.dropout(x @ x, 0.25), lambda mixed: torch.tanh(mixed * 0.1) @ x + torch.rand_like(x)
    end(begin())
    with torch.cuda.graph(first, pool=pool):
        mixed = begin()
    with torch.cuda.graph(second, pool=pool):
        out = end(mixed)

    def step():
        x.mul_(0.99)
        first.replay()
        second.replay()
        return out.clone()

    return step


@contextlib.contextmanager
def what_libraries_write():
    """Collects what is written to file descriptor 2."""
    said = []
    with tempfile.TemporaryFile() as sink:
        kept = os.dup(2)
        os.dup2(sink.fileno(), 2)
        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            sink.seek(0)
            said += sink.read().decode(errors="replace").splitlines()


def kernel_records(work) -> tuple[int, object]:
    """Runs `work` under the profiler: how many records of kernels it gives, and the result."""
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile, torch.profiler.record_function("annotation"):
        result = work()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        profile.export_chrome_trace(f"{folder}/trace.json")
        assert json.loads(Path(folder, "trace.json").read_text())["traceEvents"]
    assert any(event.name == "aten::mm" for event in profile.events()), "the operators are recorded"
    on_device = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA and e.name != "annotation"]
    return len(on_device), result


@case(once=True)
def profiler():
    """torch.profiler with CUDA activities: the program is right, and there are kernel records or a word why not"""
    need_gpu()
    x = torch.randn(256, 256, device=DEVICE)
    work = lambda: torch.relu(x @ x).sum(0)

    def step():
        plain, records, profiled, why = work(), 0, None, []
        with what_libraries_write() as said:
            try:
                records, profiled = kernel_records(work)
            except RuntimeError as error:
                why = [str(error).splitlines()[0]]
        why += [line for line in said if "cupti" in line.lower() or "cuda profiling" in line.lower()]
        note("profiler", f"{records} records of the device" if records else f"none: {why[0] if why else 'no word why'}")
        assert records or why, "the profiler gives no record of the device and does not say why"
        assert profiled is None or torch.equal(plain, profiled)
        return plain

    return step


@case(once=True)
def memory_snapshot():
    """torch.cuda.memory: history, snapshot, statistics"""
    need_gpu()

    def step():
        # What earlier cases left is not freed meanwhile, nor what they used on other streams.
        gc.collect()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.memory._record_memory_history(stacks="python", clear_history=True)
        kept = torch.zeros(1 << 20, device=DEVICE)
        (kept + 1).sum()
        taken = torch.cuda.memory_allocated() - before
        with tempfile.TemporaryDirectory() as folder:
            torch.cuda.memory._dump_snapshot(f"{folder}/snapshot.pickle")
            snapshot = pickle.loads(Path(folder, "snapshot.pickle").read_bytes())
        torch.cuda.memory._record_memory_history(enabled=None)
        # Segments depend on what the process did before.
        trace = [(entry["action"], entry["size"]) for entry in snapshot["device_traces"][0] if not entry["action"].startswith("segment")]
        assert ("alloc", 4 << 20) in trace and snapshot["segments"]
        return taken, [f"{action} {size}" for action, size in trace], torch.cuda.mem_get_info()[1], torch.cuda.get_device_properties(0).name

    return step


@case
def nvtx_ranges():
    """NVTX ranges, by hand and by autograd"""
    need_gpu()
    x = torch.randn(64, 64, device=DEVICE, requires_grad=True)

    def step():
        with torch.cuda.nvtx.range("step"), torch.autograd.profiler.emit_nvtx():
            torch.cuda.nvtx.mark("begin")
            return torch.autograd.grad((x @ x).relu().sum(), x)

    return step

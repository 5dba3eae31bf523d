"""Data into and between programs: loaders with worker processes, CUDA IPC, files, registered and pinned memory, allocators, streams."""

from __future__ import annotations

import mmap
import os
import tempfile

import torch
import torch.multiprocessing as multiprocessing

from harness import Skip, belongs, need, run_python
from torch_case import DEVICE, need_gpu, synchronize, to_bytes, torch_register

CASES, case = torch_register()
PATIENCE_S = 60


class Rows(torch.utils.data.Dataset):
    """Rows that follow from their number; at the top of a module, because a spawned worker imports it."""

    def __len__(self) -> int:
        return 96

    def __getitem__(self, index: int):
        return torch.randn(64, generator=torch.Generator().manual_seed(index)), index


def load(context: str):
    net = torch.nn.Linear(64, 8).to(DEVICE)
    loader = torch.utils.data.DataLoader(Rows(), batch_size=16, num_workers=2, multiprocessing_context=context, pin_memory=DEVICE == "cuda")

    @torch.no_grad()
    def step():
        results = []
        for x, index in loader:
            assert x.is_pinned() or DEVICE == "cpu"
            results.append((net(x.to(DEVICE, non_blocking=True)), index))
        return results

    return step


@case(once=True)
def dataloader_fork():
    """DataLoader: forked workers, pinned memory"""
    return load("fork")


@case(once=True)
def dataloader_spawn():
    """DataLoader: spawned workers, pinned memory"""
    return load("spawn")


def double(inbox, outbox) -> None:
    """The other process: doubles the tensor that it is given where it lies, and gives one of its own."""
    shared = inbox.get(timeout=PATIENCE_S)
    shared.mul_(2)
    own = torch.arange(1000, device=shared.device, dtype=torch.float32) + shared[:1000].cpu().to(shared.device)
    synchronize()
    outbox.put(own)
    inbox.get(timeout=PATIENCE_S)  # until the parent has what it was given


@case(once=True)
def tensors_between_processes():
    """torch.multiprocessing: CUDA tensors shared between processes, both ways"""

    def step():
        context = multiprocessing.get_context("spawn")
        there, back = context.Queue(), context.Queue()
        process = context.Process(target=double, args=(there, back), daemon=True)
        process.start()
        belongs(process.pid)
        try:
            mine = torch.randn(4096, device=DEVICE)
            want = mine * 2
            there.put(mine)
            theirs = back.get(timeout=PATIENCE_S)
            copied = theirs.clone()
            synchronize()
            del theirs
            there.put("done")
            process.join(PATIENCE_S)
            assert process.exitcode == 0, f"the other process ended with {process.exitcode}"
        finally:
            process.kill()
            process.join()
        assert torch.equal(mine, want), "the other process's write is seen here"
        return mine, copied

    return step


@case
def save_and_load():
    """torch.save and torch.load to the device; optimizer state; safetensors"""
    files = need("safetensors.torch")
    net = torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.BatchNorm1d(256)).to(DEVICE)
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(8, 256, device=DEVICE)).square().sum().backward()
    optimizer.step()

    def step():
        with tempfile.TemporaryDirectory() as folder:
            torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, f"{folder}/state.pt")
            files.save_file(net.state_dict(), f"{folder}/net.safetensors")
            onto = torch.load(f"{folder}/state.pt", map_location=DEVICE, weights_only=True)
            mapped = torch.load(f"{folder}/state.pt", map_location="cpu", mmap=True, weights_only=True)["net"]["0.weight"].to(DEVICE)
            direct = files.load_file(f"{folder}/net.safetensors", device=DEVICE)
        assert torch.equal(mapped, net[0].weight) and all(torch.equal(direct[k], v) for k, v in net.state_dict().items())
        return onto["net"], onto["optimizer"]["state"][0]

    return step


@case
def copies_of_every_kind():
    """Copies: pageable and pinned, blocking and not, strided, across types"""
    pageable = torch.randn(1 << 20)
    pinned = pageable.pin_memory() if DEVICE == "cuda" else pageable
    back = torch.empty(1 << 20, pin_memory=DEVICE == "cuda")

    def step():
        a, b = pageable.to(DEVICE, non_blocking=True), pinned.to(DEVICE, non_blocking=True)
        square = a.view(1024, 1024)
        back.copy_(b + 1, non_blocking=True)
        strided = square[::2, ::3].cpu()
        square[:, 5].copy_(pageable[:1024])
        synchronize()
        return back.clone(), strided, square, b.to(torch.float16).cpu(), b.double().sum()

    return step


def registered(host: torch.Tensor):
    """Copies from and to `host` while it is registered with the device."""
    cudart = torch.cuda.cudart()

    def step():
        assert int(cudart.cudaHostRegister(host.data_ptr(), host.numel() * host.element_size(), 0)) == 0, "cudaHostRegister"
        try:
            assert host.is_pinned()
            device = host.to(DEVICE, non_blocking=True) * 2
            host.copy_(device, non_blocking=True)
            synchronize()
        finally:
            assert int(cudart.cudaHostUnregister(host.data_ptr())) == 0, "cudaHostUnregister"
        result = host.clone()
        host.copy_(torch.arange(len(host), dtype=torch.float32) / 2)
        return result

    return step


@case
def host_register_pages():
    """cudaHostRegister: whole pages that the program has mapped"""
    need_gpu()
    pages = mmap.mmap(-1, 4 << 20)
    return registered(torch.frombuffer(pages, dtype=torch.float32).copy_(torch.arange(1 << 20) / 2))


@case
def host_register_tensor():
    """cudaHostRegister: an ordinary tensor, which begins and ends within pages"""
    need_gpu()
    return registered(torch.arange(100_003, dtype=torch.float32) / 2)


@case
def streams_and_events():
    """Streams of two priorities that wait for each other's events; time between events"""
    need_gpu()
    low, high = torch.cuda.Stream(priority=0), torch.cuda.Stream(priority=-1)
    x = torch.randn(512, 512, device=DEVICE)

    def step():
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(4)]
        parts, main = [], torch.cuda.current_stream()
        marks[0].record(main)
        for index, stream in enumerate((low, high, low, high)):
            stream.wait_event(marks[0] if index == 0 else marks[1 + (index - 1) % 2])
            with torch.cuda.stream(stream):
                y = (parts[-1] if parts else x) @ x * 0.01
                y.record_stream(stream)
                parts.append(y)
            marks[1 + index % 2].record(stream)
        main.wait_stream(low)
        main.wait_stream(high)
        marks[3].record(main)
        total = sum(parts)
        marks[3].synchronize()
        assert marks[3].query() and 0 < marks[0].elapsed_time(marks[3]) < 10_000
        return total

    return step


ALLOCATES = """
import hashlib, os, random, torch
draw, kept, hashed = random.Random(3), [], hashlib.sha256()
device = os.environ.get("LIGHTOS_CASES_DEVICE", "cuda")
for turn in range(200):
    kept.append(torch.full((draw.randrange(1, 3 << 20),), float(turn), device=device))
    if len(kept) > 12:
        kept.pop(draw.randrange(len(kept)))
    if turn % 20 == 0:
        side = torch.cuda.Stream() if device == "cuda" else None
        if side:
            side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            kept.append(kept[-1] * 2)
        if side:
            torch.cuda.current_stream().wait_stream(side)
    if turn % 50 == 49 and device == "cuda":
        torch.cuda.empty_cache()
for tensor in kept:
    hashed.update(tensor.cpu().numpy().tobytes())
print(hashed.hexdigest())
"""


def with_allocator(configuration: str):
    """A program of its own: the allocator is chosen when CUDA starts."""

    def step():
        out = run_python(ALLOCATES, PYTORCH_ALLOC_CONF=configuration, PYTORCH_CUDA_ALLOC_CONF=configuration)
        assert len(out.split()) == 1, out
        return out

    return step


@case(once=True)
def allocator_expandable_segments():
    """Allocator: expandable segments (cuMemMap)"""
    return with_allocator("expandable_segments:True")


@case(once=True)
def allocator_async():
    """Allocator: cudaMallocAsync"""
    return with_allocator("backend:cudaMallocAsync")


@case(once=True)
def allocator_pinned_by_register():
    """Allocator: pinned memory by cudaHostRegister"""
    need_gpu()
    program = "import torch; a = torch.arange(3_000_001).pin_memory(); b = (a.cuda(non_blocking=True) * 3).cpu(); print(int(b.sum()), a.is_pinned())"
    options = "pinned_use_cuda_host_register:True,pinned_num_register_threads:4"
    return lambda: run_python(program, PYTORCH_ALLOC_CONF=options, PYTORCH_CUDA_ALLOC_CONF=options)


@case(once=True)
def ranks_by_mpi():
    """mpi4py: host buffers of a device's results, summed over the ranks of one program"""
    need("mpi4py")
    try:
        run_python("from mpi4py import MPI")
    except RuntimeError as error:
        raise Skip("no MPI library") from error
    program = ("import torch; from mpi4py import MPI; import numpy, os; device = os.environ.get('LIGHTOS_CASES_DEVICE', 'cuda');"
               "mine = torch.arange(1000., device=device).square().cpu().numpy(); total = numpy.empty_like(mine);"
               "MPI.COMM_WORLD.Allreduce(mine, total); print(MPI.COMM_WORLD.size, float(total.sum()))")
    return lambda: run_python(program)

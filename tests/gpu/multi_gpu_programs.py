"""Programs for two GPUs, run by multi_gpu.py. Each prints one JSON line: a digest of its results and a time per step.

    python3 -m torch.distributed.run --standalone --nproc-per-node 2 multi_gpu_programs.py all_reduce
    python3 multi_gpu_programs.py pmap
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time

PROGRAMS = {}


def program(function):
    PROGRAMS[function.__name__] = function
    return function


def tell(digest, step_ms: float, **more):
    print("RESULT " + json.dumps({"sha256": digest.hexdigest(), "step_ms": round(step_ms, 4)} | more), flush=True)


def timed(step, synchronize, seconds: float = 1.0) -> float:
    """Median of single steps in milliseconds."""
    times, end = [], time.perf_counter() + seconds
    while len(times) < 10 or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        synchronize()
        times.append(1e3 * (time.perf_counter() - start))
    return sorted(times)[len(times) // 2]


def rank():
    """Joins the NCCL group that the launcher describes."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("nccl")
    local = int(os.environ["LOCAL_RANK"])
    torch.cuda.set_device(local)
    return torch, dist, torch.device("cuda", local)


@program
def all_reduce():
    torch, dist, device = rank()
    generator = torch.Generator(device).manual_seed(1 + dist.get_rank())
    digest = hashlib.sha256()
    for elements in (1, 1000, 1 << 20, 1 << 25):
        for kind in (torch.float32, torch.bfloat16):
            x = torch.randn(elements, device=device, generator=generator).to(kind)
            dist.all_reduce(x)
            gathered = [torch.empty_like(x) for _ in range(dist.get_world_size())] if elements <= 1 << 20 else []
            if gathered:
                dist.all_gather(gathered, x)
            for result in (x, *gathered):
                digest.update(result.view(torch.uint8).cpu().numpy().tobytes())
    x = torch.ones(1 << 26, device=device)
    # Every rank makes the same number of steps.
    step = lambda: dist.all_reduce(x)
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(50):
        step()
    torch.cuda.synchronize()
    elapsed = (time.perf_counter() - start) / 50
    if dist.get_rank() == 0:
        tell(digest, 1e3 * elapsed)
    dist.destroy_process_group()


def network(torch, device):
    torch.manual_seed(0)
    layers = [torch.nn.Linear(512, 2048), torch.nn.GELU(), torch.nn.LayerNorm(2048), torch.nn.Linear(2048, 512)]
    return torch.nn.Sequential(*layers).to(device)


@program
def ddp():
    """Training steps of DistributedDataParallel. With MARK, the file of that name is made after a third of them, and the rest waits for MARK.go."""
    torch, dist, device = rank()
    from torch.nn.parallel import DistributedDataParallel

    torch.use_deterministic_algorithms(True)
    model = DistributedDataParallel(network(torch, device), device_ids=[device.index])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    generator = torch.Generator(device).manual_seed(7 + dist.get_rank())
    digest, mark = hashlib.sha256(), os.environ.get("MARK")

    def step():
        x = torch.randn(256, 512, device=device, generator=generator)
        loss = (model(x) - x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    for index in range(30):
        loss = step()
        digest.update(loss.detach().cpu().numpy().tobytes())
        if mark and index == 10 and dist.get_rank() == 0:
            open(mark, "w").close()
        while mark and index == 10 and not os.path.exists(mark + ".go"):
            time.sleep(0.01)
    for parameter in model.parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(100):
        step()
    torch.cuda.synchronize()
    if dist.get_rank() == 0:
        tell(digest, 10 * (time.perf_counter() - start))
    dist.destroy_process_group()


@program
def pipeline():
    """One process, two devices: a model split over both, copies between them, events across."""
    import torch

    first, second = torch.device("cuda:0"), torch.device("cuda:1")
    head, tail = network(torch, first), network(torch, second)
    optimizer = torch.optim.SGD([*head.parameters(), *tail.parameters()], lr=1e-2)
    generator = torch.Generator(first).manual_seed(3)
    digest = hashlib.sha256()

    def step():
        x = torch.randn(128, 512, device=first, generator=generator)
        loss = tail(head(x).to(second)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    for _ in range(10):
        digest.update(step().detach().cpu().numpy().tobytes())
    synchronize = lambda: (torch.cuda.synchronize(0), torch.cuda.synchronize(1))
    tell(digest, timed(step, synchronize))


@program
def pmap():
    """JAX over both devices: psum and a data-parallel gradient."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    digest = hashlib.sha256()
    devices = jax.device_count()
    x = jax.random.normal(jax.random.key(0), (devices, 256, 512))
    total = jax.pmap(lambda a: jax.lax.psum(a, "i"), axis_name="i")(x)
    digest.update(np.asarray(total).tobytes())
    w = jax.random.normal(jax.random.key(1), (512, 512)) * 0.02

    def loss(w, x):
        return jnp.mean((jnp.tanh(x @ w) - x) ** 2)

    step = jax.pmap(lambda w, x: jax.lax.pmean(jax.grad(loss)(w, x), "i"), axis_name="i", in_axes=(None, 0))
    digest.update(np.asarray(step(w, x)).tobytes())
    tell(digest, timed(lambda: jax.block_until_ready(step(w, x)), lambda: None), devices=devices)


@program
def peers():
    """The driver API itself: peer access and a copy between two contexts."""
    import numpy as np
    from cuda.bindings import driver

    def ok(answer):
        assert answer[0] == driver.CUresult.CUDA_SUCCESS, answer[0]
        return answer[1] if len(answer) == 2 else answer[1:]

    ok(driver.cuInit(0))
    contexts = [ok(driver.cuDevicePrimaryCtxRetain(device)) for device in (0, 1)]
    can = [ok(driver.cuDeviceCanAccessPeer(a, b)) for a, b in ((0, 1), (1, 0))]
    data = np.arange(1 << 20, dtype=np.int32)
    pointers = []
    for context in contexts:
        ok(driver.cuCtxSetCurrent(context))
        pointers.append(ok(driver.cuMemAlloc(data.nbytes)))
    access = []
    for here, there in (contexts, contexts[::-1]):
        ok(driver.cuCtxSetCurrent(here))
        access.append(driver.cuCtxEnablePeerAccess(there, 0)[0].name)
    ok(driver.cuCtxSetCurrent(contexts[0]))
    ok(driver.cuMemcpyHtoD(pointers[0], data.ctypes.data, data.nbytes))
    copy = lambda: ok(driver.cuMemcpyPeer(pointers[1], contexts[1], pointers[0], contexts[0], data.nbytes))
    copy()
    back = np.zeros_like(data)
    ok(driver.cuCtxSetCurrent(contexts[1]))
    ok(driver.cuMemcpyDtoH(back.ctypes.data, pointers[1], data.nbytes))
    digest = hashlib.sha256(back.tobytes() + repr((can, access)).encode())
    tell(digest, timed(copy, lambda: ok(driver.cuCtxSynchronize())), equal=bool((back == data).all()), access=access)


if __name__ == "__main__":
    PROGRAMS[sys.argv[1]]()

"""Programs in CUDA C++ on the static runtime: compiled by nvcc once for each command, run as programs of their own.

The sources are in `native/`. Each checks itself; what it prints, a digest mostly, is the result.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from harness import SCRATCH, Skip, register, run

CASES, case = register()
SOURCES = Path(__file__).resolve().parent / "native"
# What a program is built with beside the common options; the library it needs, by the name of its header.
OPTIONS = {"dynamic": ["-rdc=true", "-lcudadevrt"], "thrust": ["--extended-lambda"], "threads": ["--default-stream", "per-thread"]}
LIBRARIES = {"cublas": "cublas_v2.h", "cufft": "cufft.h"}


def to_bytes(value) -> bytes:
    return bytes(value)


def synchronize() -> None:
    pass  # a program that has ended has no work left


@cache
def nvcc() -> str:
    found = shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")
    if not found:
        raise Skip("nvcc is not installed")
    return found


@cache
def architecture() -> str:
    if given := os.environ.get("LIGHTOS_CASES_ARCHITECTURE"):
        return given
    query = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader", "--id=0"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise Skip(f"nvidia-smi does not tell the device's architecture: {error}") from error
    return "sm_" + told.strip().replace(".", "")


def library(name: str) -> list[str]:
    """Options for the library `name`: of the toolkit, or of the Python packages that bring it."""
    toolkit = Path(nvcc()).resolve().parent.parent
    roots = [toolkit, toolkit / "targets/x86_64-linux"]
    for folder in [*site.getsitepackages(), site.getusersitepackages()]:
        roots += sorted(Path(folder).glob("nvidia/*"))
    for root in roots:
        objects = [file for folder in ("lib64", "lib") for file in sorted((root / folder).glob(f"lib{name}.so*"))]
        if (root / "include" / LIBRARIES[name]).exists() and objects:
            # Behind the toolkit's own headers, which must fit nvcc.
            return ["-Xcompiler", f"-idirafter,{root}/include", f"-L{objects[0].parent}", f"-l:{objects[0].name}",
                    "-Xlinker", f"-rpath={objects[0].parent}"]
    raise Skip(f"{LIBRARIES[name]} or lib{name}.so is not installed")


def build(name: str, folder: Path) -> None:
    """Compiles to a name that no other pass of the command takes for finished."""
    options = OPTIONS.get(name, []) + (library(name) if name in LIBRARIES else [])
    unfinished = folder / f"{name}.{os.getpid()}"
    command = [nvcc(), "-O1", "-std=c++17", f"-arch={architecture()}", "-o", str(unfinished), str(SOURCES / f"{name}.cu"), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"nvcc: {(done.stdout + done.stderr).strip()[-500:]}")
    unfinished.rename(folder / name)


@cache
def builds() -> dict[str, Path | Exception]:
    """Every program, built at once; what stood in the way where one is missing."""
    folder = Path(SCRATCH or tempfile.mkdtemp()) / "native"
    folder.mkdir(exist_ok=True)

    def one(name: str) -> Path | Exception:
        try:
            if not (folder / name).exists():
                build(name, folder)
            return folder / name
        except Exception as error:
            return error

    names = [source.stem for source in sorted(SOURCES.glob("*.cu"))]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(names, pool.map(one, names)))


def program(name: str):
    built = builds()[name]
    if isinstance(built, Exception):
        raise built

    def step() -> str:
        out = run([str(built)])
        assert out.strip(), "the program prints its result"
        return out

    return step


@case(once=True)
def graphs():
    """Static runtime: graphs captured, built, updated, cloned; symbols"""
    return program("graphs")


@case(once=True)
def streams():
    """Static runtime: streams, events, host functions, pinned and pitched memory, stream-ordered allocation"""
    return program("streams")


@case(once=True)
def threads():
    """Per-thread default streams, six threads"""
    return program("threads")


@case(once=True, may_refuse=True)
def managed():
    """Managed memory, a managed variable, advice and prefetching"""
    return program("managed")


@case(once=True)
def allocated_managed():
    """Managed memory without a managed variable"""
    return program("allocated_managed")


@case(once=True)
def device_printf():
    """printf on the device"""
    step = program("printf")
    # Blocks print in any order.
    return lambda: "\n".join(sorted(step().splitlines()))


@case(once=True)
def cooperative():
    """Cooperative groups: barriers of the grid, tiles, clusters"""
    return program("cooperative")


@case(once=True, may_refuse=True)
def dynamic_parallelism():
    """Dynamic parallelism: kernels that launch kernels"""
    return program("dynamic")


@case(once=True)
def textures():
    """Texture and surface objects: arrays, linear memory, layers"""
    return program("textures")


@case(once=True)
def cublas():
    """cuBLAS from C++: single, half, batched, captured in a graph"""
    return program("cublas")


@case(once=True)
def cufft():
    """cuFFT from C++: one and two axes"""
    return program("cufft")


@case(once=True)
def thrust_and_cub():
    """Thrust and CUB: sort, scan, reduction by key, selection, histogram"""
    return program("thrust")

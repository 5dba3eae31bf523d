"""Graphs with arrays: captured copies, nodes added by hand, parameters changed afterwards, textures and surfaces in kernel nodes."""

from __future__ import annotations

import ctypes

import numpy as np
from cuda.bindings import driver

from device import Session, code, ok, parameters
from registry import case, check

from .arrays import KERNELS, NON_BLOCKING, at_array, at_device, at_host, box, pinned, read_back, surface
from .textures import SURFACE_LDST, handle, make_array

WIDTH, HEIGHT = 48, 32
SIZE = 4 * WIDTH, HEIGHT


@case
def captured_array_copies(gpu: Session):
    """What is captured reads its source and writes its destination at each launch."""
    array = make_array(np.int32, WIDTH, HEIGHT, flags=SURFACE_LDST)
    line = make_array(np.int32, 100, 0)
    to, add = surface(array), gpu.function(KERNELS, "add_to_surface")
    image, out = pinned((HEIGHT, WIDTH), np.int32), pinned((HEIGHT, WIDTH), np.int32)
    short, short_out = pinned(100, np.int32), pinned(60, np.int32)
    memory = gpu.empty(4 * WIDTH * HEIGHT)
    image[:], out[:], short[:], short_out[:] = 1, 0, 1, 0
    stream = ok(driver.cuStreamCreate(NON_BLOCKING))
    ok(driver.cuStreamBeginCapture(stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL))
    ok(driver.cuMemcpy3DAsync(box(at_array("dst", array), at_host("src", image, 4 * WIDTH), *SIZE), stream))
    args = handle(to), ctypes.c_int(WIDTH), ctypes.c_int(HEIGHT), ctypes.c_int(5)
    gpu.launch(add, (6, 4), (8, 8), *args, stream=int(stream))
    ok(driver.cuMemcpy3DAsync(box(at_device("dst", memory, 4 * WIDTH), at_array("src", array), *SIZE), stream))
    ok(driver.cuMemcpy3DAsync(box(at_host("dst", out, 4 * WIDTH), at_array("src", array), *SIZE), stream))
    ok(driver.cuMemcpyHtoAAsync(line, 0, short.ctypes.data, short.nbytes, stream))
    ok(driver.cuMemcpyAtoHAsync(short_out.ctypes.data, line, 4 * 40, short_out.nbytes, stream))
    graph = ok(driver.cuStreamEndCapture(stream))
    executable = ok(driver.cuGraphInstantiate(graph, 0))
    results = {"nothing ran": check(out.copy(), np.zeros_like(out))}
    for n in range(3):
        image[:] = np.random.default_rng(n).integers(0, 1000, image.shape)
        short[:] = np.arange(100) * n
        ok(driver.cuGraphLaunch(executable, stream))
        ok(driver.cuStreamSynchronize(stream))
        results[f"launch {n}"] = check(out.copy(), image + 5)
        results[f"device {n}"] = check(gpu.download(memory, out.shape, np.int32), image + 5)
        results[f"line {n}"] = check(short_out.copy(), short[40:].copy())
    ok(driver.cuGraphExecDestroy(executable))
    ok(driver.cuGraphDestroy(graph))
    ok(driver.cuSurfObjectDestroy(to))
    for gone in (array, line):
        ok(driver.cuArrayDestroy(gone))
    return results


@case
def array_nodes_by_hand(gpu: Session):
    """Copy nodes with arrays, read back from the graph. In the executable graph only a copy of one dimension is changed."""
    first, second = (make_array(np.int32, WIDTH, HEIGHT, flags=SURFACE_LDST) for _ in range(2))
    to, add = surface(first), gpu.function(KERNELS, "add_to_surface")
    image, out = pinned((HEIGHT, WIDTH), np.int32), pinned((HEIGHT, WIDTH), np.int32)
    image[:], out[:] = np.arange(image.size).reshape(image.shape), 0
    graph = ok(driver.cuGraphCreate(0))
    up = box(at_array("dst", first), at_host("src", image, 4 * WIDTH), *SIZE)
    up_node = ok(driver.cuGraphAddMemcpyNode(graph, None, 0, up, gpu.context))
    kernel = driver.CUDA_KERNEL_NODE_PARAMS()
    kernel.func, kernel.gridDimX, kernel.gridDimY, kernel.gridDimZ = add, 6, 4, 1
    kernel.blockDimX, kernel.blockDimY, kernel.blockDimZ = 8, 8, 1
    _keep, pointers = parameters(handle(to), ctypes.c_int(WIDTH), ctypes.c_int(HEIGHT), ctypes.c_int(3))
    kernel.kernelParams = ctypes.addressof(pointers)
    add_node = ok(driver.cuGraphAddKernelNode(graph, [up_node], 1, kernel))
    across = box(at_array("dst", second, 4 * 8, 4), at_array("src", first), 4 * (WIDTH - 8), HEIGHT - 4)
    across_node = ok(driver.cuGraphAddMemcpyNode(graph, [add_node], 1, across, gpu.context))
    down = box(at_host("dst", out, 4 * WIDTH), at_array("src", second), *SIZE)
    down_node = ok(driver.cuGraphAddMemcpyNode(graph, [across_node], 1, down, gpu.context))
    found = ok(driver.cuGraphMemcpyNodeGetParams(across_node))
    results = {"is the array": int(found.srcArray) == int(first) and int(found.dstArray) == int(second),
               "place": [found.dstXInBytes, found.dstY, found.WidthInBytes, found.Height]}
    lines, line = [gpu.upload(np.full(16, n, np.int32)) for n in (5, 6)], pinned(16, np.int32)

    def line_from(source: int):
        return box(at_host("dst", line, line.nbytes), at_device("src", source, line.nbytes), line.nbytes, 1)

    line_node = ok(driver.cuGraphAddMemcpyNode(graph, None, 0, line_from(lines[0]), gpu.context))
    executable = ok(driver.cuGraphInstantiate(graph, 0))

    def launch():
        ok(driver.cuGraphLaunch(executable, 0))
        ok(driver.cuStreamSynchronize(0))
        return out.copy()

    blank = np.zeros_like(image)
    ok(driver.cuMemcpy3D(box(at_array("dst", second), at_host("src", blank, 4 * WIDTH), *SIZE)))
    want = blank.copy()
    want[4:, 8:] = image[:-4, :-8] + 3
    results["shifted"] = check(launch(), want)
    results["line"] = check(line.copy(), np.full(16, 5, np.int32))

    def change(node, copy) -> str:
        return code(driver.cuGraphExecMemcpyNodeSetParams(executable, node, copy, gpu.context))

    # To another array, to fewer rows, to a place outside.
    results["changed"] = [
        change(down_node, box(at_host("dst", out, 4 * WIDTH), at_array("src", first), *SIZE)),
        change(up_node, box(at_array("dst", first), at_host("src", image, 4 * WIDTH), 4 * 10, 10))]
    results["outside"] = change(across_node, box(at_array("dst", second, 4), at_array("src", first), *SIZE))
    ok(driver.cuGraphExecMemcpyNodeSetParams(executable, line_node, line_from(lines[1]), gpu.context))
    results["again"] = check(launch(), want)
    results["the other line"] = check(line.copy(), np.full(16, 6, np.int32))
    results["the second array"] = check(read_back(second, image.shape, np.int32), want)
    ok(driver.cuGraphExecDestroy(executable))
    ok(driver.cuGraphDestroy(graph))
    ok(driver.cuSurfObjectDestroy(to))
    for gone in (first, second):
        ok(driver.cuArrayDestroy(gone))
    return results

"""How programs live and end: natively and under the shim, with the same output, the same errors and the same exit status.

Environment as for test_clients.py.
"""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from test_clients import LIGHTOS, environment, HERE

# A kernel that runs until a word is set, and one that ends at once.
PRELUDE = """
import atexit, ctypes, os, signal, sys, threading, time
import numpy as np
from device import Session, code, driver, ok
SOURCE = '''
extern "C" __global__ void spin(volatile int* go) { while (!*go) {} }
extern "C" __global__ void add(int* d, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) d[i] += 1; }
'''
def begin():
    gpu = Session()
    module = gpu.module(SOURCE)
    return gpu, *(ok(driver.cuModuleGetFunction(module, name)) for name in (b"spin", b"add"))
def say(*words): print(*words, flush=True)
"""

WAYS = {"native": [], "sidecar": ["--dispatch", "sidecar"], "local": ["--dispatch", "local"]}


def start(way: str, program: str, **options) -> subprocess.Popen:
    command = [sys.executable, "-c", PRELUDE + program]
    if way != "native":
        command = [LIGHTOS, "run", "--softgpu", *WAYS[way], "--", *command]
    return subprocess.Popen(command, env=environment(), cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def outcomes(program: str, limit: float = 60) -> dict[str, tuple]:
    """Exit status, stdout and stderr of every way; none may hang."""
    found = {}
    for way in WAYS:
        child = start(way, program)
        try:
            stdout, stderr = child.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            child.kill()
            pytest.fail(f"{way}: no end within {limit} s: {child.communicate()}")
        found[way] = (child.returncode, stdout, stderr)
    return found


def same(program: str, limit: float = 60) -> tuple:
    found = outcomes(program, limit)
    assert found["sidecar"] == found["native"] and found["local"] == found["native"], found
    return found["native"]


def test_exit_while_a_kernel_runs():
    """The kernel never ends; the program does, at once, with its own status."""
    for end in ("os._exit(3)", "sys.exit(3)"):
        program = f"gpu, spin, add = begin()\nword = gpu.empty(64)\ngpu.launch(spin, (1,), (1,), word)\nsay('launched')\n{end}\n"
        found = outcomes(program, limit=45)
        for way, (status, stdout, _) in found.items():
            assert (status, stdout) == (3, "launched\n"), (way, found)


def test_abort_while_a_kernel_runs():
    found = outcomes("gpu, spin, add = begin()\nword = gpu.empty(64)\ngpu.launch(spin, (1,), (1,), word)\nsay('launched')\nos.abort()\n")
    for way, (status, stdout, _) in found.items():
        assert (status, stdout) == (-6 if way == "native" else 128 + 6, "launched\n"), found


def test_cuda_in_exit_handlers():
    """Handlers that were registered before and after the driver was initialised: both may use the device or are told that it is gone."""
    program = """
def late():
    try:
        say('late', code(driver.cuCtxSynchronize()) in ('CUDA_SUCCESS', 'CUDA_ERROR_DEINITIALIZED'))
    except Exception as error:
        say('late', error)
atexit.register(late)
gpu, spin, add = begin()
data = gpu.empty(1024)
def early():
    gpu.launch(add, (1,), (256,), data, ctypes.c_int(256))
    say('early', gpu.download(data, 256, np.int32).sum())
atexit.register(early)
"""
    assert same(program)[:2] == (0, "early 256\nlate True\n")


def test_an_interrupt_ends_the_wait_as_natively():
    """Ctrl-C while a thread waits for the device: Python raises KeyboardInterrupt once the wait is over, and the program goes on."""
    program = """
gpu, spin, add = begin()
word = ok(driver.cuMemHostAlloc(64, 0))
go = ctypes.c_int.from_address(int(word))
go.value = 0
gpu.launch(spin, (1,), (1,), int(word))
def release():
    time.sleep(.3)
    go.value = 1
threading.Thread(target=release).start()
threading.Timer(.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    ok(driver.cuCtxSynchronize())
    time.sleep(5)
    say('not interrupted')
except KeyboardInterrupt:
    say('interrupted')
say(code(driver.cuCtxSynchronize()))
"""
    assert same(program)[:2] == (0, "interrupted\nCUDA_SUCCESS\n")


def test_the_programs_own_signal_handlers():
    """A handler of the program for a fault, for its children, and for a timer that fires during calls."""
    program = """
gpu, spin, add = begin()
data = gpu.empty(1024)
ticks = []
signal.signal(signal.SIGALRM, lambda *_: ticks.append(1))
signal.setitimer(signal.ITIMER_REAL, .002, .002)
for _ in range(300):
    gpu.launch(add, (1,), (256,), data, ctypes.c_int(256))
    if _ % 10 == 0: ok(driver.cuStreamSynchronize(0))
total = int(gpu.download(data, 256, np.int32).sum())
signal.setitimer(signal.ITIMER_REAL, 0)
children = []
signal.signal(signal.SIGCHLD, lambda *_: children.append(1))
os.waitpid(os.posix_spawn('/bin/true', ['true'], os.environ), 0)
time.sleep(.05)
say(total, len(ticks) > 0, children)
"""
    assert same(program)[:2] == (0, f"{300 * 256} True [1]\n")


def test_threads_that_come_and_go():
    program = """
gpu, spin, add = begin()
data = [gpu.empty(1024) for _ in range(10)]
def work(own):
    ok(driver.cuCtxSetCurrent(gpu.context))
    gpu.launch(add, (1,), (256,), own, ctypes.c_int(256), stream=2)
    ok(driver.cuStreamSynchronize(2))
for own in data: ok(driver.cuMemsetD8(own, 0, 1024))
for _ in range(40):
    some = [threading.Thread(target=work, args=(own,)) for own in data]
    for thread in some: thread.start()
    for thread in some: thread.join()
say(all((gpu.download(own, 256, np.int32) == 40).all() for own in data), code(driver.cuCtxSynchronize()))
"""
    status, stdout, stderr = same(program, limit=120)
    assert (status, stdout, stderr) == (0, "True CUDA_SUCCESS\n", "")


def test_the_main_thread_may_end_first():
    program = """
gpu, spin, add = begin()
data = gpu.empty(1024)
def work():
    ok(driver.cuCtxSetCurrent(gpu.context))
    time.sleep(.2)
    for _ in range(50): gpu.launch(add, (1,), (256,), data, ctypes.c_int(256))
    say(int(gpu.download(data, 256, np.int32)[0]))
threading.Thread(target=work).start()
"""
    assert same(program)[:2] == (0, "50\n")


def test_workers_that_never_touch_cuda():
    """Workers forked from a process that uses the device, as data loaders have them, while another thread launches."""
    program = """
import multiprocessing
gpu, spin, add = begin()
data, stop = gpu.empty(1024), threading.Event()
def launches():
    ok(driver.cuCtxSetCurrent(gpu.context))
    while not stop.is_set(): gpu.launch(add, (1,), (256,), data, ctypes.c_int(256))
thread = threading.Thread(target=launches); thread.start()
def square(x): return x * x
with multiprocessing.get_context('fork').Pool(3) as pool:
    total = sum(pool.map(square, range(100)))
stop.set(); thread.join()
ok(driver.cuCtxSynchronize())
say(total, len(set(gpu.download(data, 256, np.int32))))
"""
    assert same(program, limit=120)[:2] == (0, "328350 1\n")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_of_multiprocessing(method: str, tmp_path):
    """Each child is a program of its own that uses the device."""
    script = tmp_path / "script.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(HERE)!r})\n" + PRELUDE + """
import multiprocessing
def work(index):
    gpu, spin, add = begin()
    data = gpu.empty(1024)
    for _ in range(index): gpu.launch(add, (1,), (256,), data, ctypes.c_int(256))
    return int(gpu.download(data, 256, np.int32)[7])
if __name__ == '__main__':
    with multiprocessing.get_context(sys.argv[1]).Pool(2) as pool:
        say(pool.map(work, [3, 5]))
""")
    program = f"os.execv(sys.executable, [sys.executable, {str(script)!r}, {method!r}])"
    assert same(program, limit=120)[:2] == (0, "[3, 5]\n")


def test_a_daemon():
    """Two forks, a session of its own, all descriptors closed, and only then the device."""
    program = """
read, write = os.pipe()
if os.fork():
    os.close(write)
    say(os.fdopen(read).read())
    os.wait()
    sys.exit(0)
os.setsid()
if os.fork(): os._exit(0)
os.dup2(write, 3)
os.closerange(4, 1024)
null = os.open('/dev/null', os.O_RDWR)
for fd in (0, 1, 2): os.dup2(null, fd)
gpu, spin, add = begin()
data = gpu.empty(1024)
gpu.launch(add, (1,), (256,), data, ctypes.c_int(256))
os.write(3, str(int(gpu.download(data, 256, np.int32).sum())).encode())
os._exit(0)
"""
    assert same(program)[:2] == (0, "256\n")


def test_descriptors_closed_behind_the_drivers_back():
    """Natively that breaks the driver or not, as the case may be. Under the shim it is an error by name at worst, never a hang."""
    program = """
gpu, spin, add = begin()
data = gpu.empty(1024)
os.closerange(3, 1024)
answers = set()
for _ in range(200):
    answers.add(code(driver.cuMemsetD8(data, 1, 1024)))
    answers.add(code(driver.cuCtxSynchronize()))
os._exit(0)
"""
    for way, (status, _, _) in outcomes(program, limit=60).items():
        assert status == 0, way


def test_few_descriptors():
    program = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
gpu, spin, add = begin()
streams = [ok(driver.cuStreamCreate(1)) for _ in range(100)]
events = [ok(driver.cuEventCreate(0)) for _ in range(100)]
blocks = [gpu.empty(3 << 20) for _ in range(20)]
for block, stream in zip(blocks, streams): gpu.launch(add, (1,), (256,), block, ctypes.c_int(256), stream=stream)
ok(driver.cuCtxSynchronize())
say(sum(int(gpu.download(block, 256, np.int32).sum()) for block in blocks))
"""
    assert same(program)[:2] == (0, f"{20 * 256}\n")


def test_stderr_and_stdout_may_be_closed():
    program = """
os.close(2)
gpu, spin, add = begin()
data = gpu.empty(1024)
opened = os.open('/dev/null', os.O_WRONLY)
gpu.launch(add, (1,), (256,), data, ctypes.c_int(256))
say(opened, int(gpu.download(data, 256, np.int32).sum()))
"""
    status, stdout, _ = outcomes(program)["sidecar"]
    assert status == 0 and stdout.endswith(" 256\n")


def test_the_library_may_be_closed_and_opened_again():
    program = """
import _ctypes
handle = ctypes.CDLL('libcuda.so.1')
say(handle.cuInit(0))
_ctypes.dlclose(handle._handle)
gpu, spin, add = begin()
data = gpu.empty(1024)
gpu.launch(add, (1,), (256,), data, ctypes.c_int(256))
again = ctypes.CDLL('libcuda.so.1')
say(int(gpu.download(data, 256, np.int32).sum()), again.cuCtxSynchronize())
_ctypes.dlclose(again._handle)
say(code(driver.cuCtxSynchronize()))
"""
    assert same(program)[:2] == (0, "0\n256 0\nCUDA_SUCCESS\n")


def test_killed_by_its_user():
    """SIGTERM and SIGKILL in the middle of work: the command ends as a shell would tell."""
    for number in (15, 9):
        for way in ("sidecar", "local"):
            child = start(way, "gpu, spin, add = begin()\nword = gpu.empty(64)\ngpu.launch(spin, (1,), (1,), word)\nsay('launched')\nos.kill(os.getpid(), %d)\ntime.sleep(30)" % number)
            began = time.monotonic()
            stdout, _ = child.communicate(timeout=40)
            assert (child.returncode, stdout) == (128 + number, "launched\n"), way
            assert time.monotonic() - began < 30

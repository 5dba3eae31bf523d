"""Third-party clients, natively on the software GPU and under the shim: same results, same errors.

Environment: LIGHTOS_BIN (the `lightos` binary), SOFTGPU_LIB (folder of the software GPU's libcuda.so.1). `cargo xtask
test --clients` sets both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cases import CASES
from native_only import NATIVE_ONLY

HERE = Path(__file__).parent
LIGHTOS = os.environ["LIGHTOS_BIN"]
SOFTGPU = os.environ["SOFTGPU_LIB"]
# Cases whose point is an error that sticks.
BREAKS_ITS_CONTEXT = {"sticky_fault", "faults_by_kind", "faults_by_call"}


# What the same cases gave natively on hardware (tests/gpu/clients.py), and where the software GPU differs knowingly.
HARDWARE = json.loads((HERE.parents[1] / "docs/results/h100-80gb-hbm3-clients.json").read_text())["native"]
DIFFERS_FROM_HARDWARE = {
    "occupancy_and_attributes/attributes/NUM_REGS": "counted in the PTX, in steps of 8 from 16 on",
    "occupancy_and_attributes/clusters": "clusters are not carried",
    **dict.fromkeys([f"clusters/({blocks}, 1, 1)" for blocks in (2, 3, 64)], "clusters are not carried"),
    # More is allowed on hardware.
    "array_queries_and_errors/surface": "hardware makes surfaces of arrays without the flag for them",
    "object_queries/filtered integers": "hardware takes filters for integer textures",
    "object_queries/gone": "hardware does not check the handle of an object that is gone",
    # Less is.
    "pointer_attributes/pageable/host": "that host's kernel lets the device read pageable memory",
    "pointer_attributes/pageable/ordinal": "as above",
}


def environment() -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("LIGHTOS_") and k != "LD_PRELOAD"}
    path = clean.get("LD_LIBRARY_PATH")
    clean["LD_LIBRARY_PATH"] = SOFTGPU + (":" + path if path else "")
    return clean


def run(command: list[str], timeout: int = 180) -> subprocess.CompletedProcess:
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=timeout, cwd=HERE)


def shimmed(command: list[str], report: Path | None = None, mode: str = "sidecar") -> subprocess.CompletedProcess:
    option = ["--report", str(report)] if report else []
    return run([LIGHTOS, "run", "--softgpu", "--dispatch", mode, *option, "--", *command])


@pytest.fixture(scope="session")
def native_results() -> dict[str, dict]:
    return {}


@pytest.mark.parametrize("name", sorted(CASES))
def test_native(name: str, native_results):
    done = run([sys.executable, "cases.py", name])
    assert done.returncode == 0, done.stderr[-3000:]
    native_results[name] = json.loads(done.stdout)


def differences(a, b, path: str) -> set[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        return {d for key in a.keys() | b.keys() for d in differences(a.get(key), b.get(key), f"{path}/{key}")}
    return set() if a == b else {path}


@pytest.mark.parametrize("name", sorted(CASES.keys() & HARDWARE.keys()))
def test_as_on_hardware(name: str, native_results):
    """The software GPU's values and error codes are those that an H100 gave."""
    if name not in native_results:
        test_native(name, native_results)
    known = {path for path in DIFFERS_FROM_HARDWARE if path.startswith(name + "/")}
    assert differences(HARDWARE[name], native_results[name], name) == known


@pytest.mark.parametrize("name", sorted(CASES.keys() - NATIVE_ONLY.keys()))
def test_under_the_shim(name: str, native_results, tmp_path):
    report = tmp_path / "report.json"
    done = shimmed([sys.executable, "cases.py", name], report)
    assert done.returncode == 0, done.stderr[-3000:]
    if name not in native_results:
        native = run([sys.executable, "cases.py", name])
        assert native.returncode == 0, native.stderr[-3000:]
        native_results[name] = json.loads(native.stdout)
    assert json.loads(done.stdout) == native_results[name]
    assert done.stderr == "", "the user's stderr stays clean"
    tenants = json.loads(report.read_text())["tenants"]
    assert tenants, "the program was served"
    for tenant in tenants:
        assert tenant["sticky_error"] == 0 or name in BREAKS_ITS_CONTEXT
        # Launches that a hook forwarded are those that the executor made: none was lost, none ran elsewhere unseen.
        calls = tenant["calls"]
        forwarded = sum(c["forwarded"] for n, c in calls.items() if n.startswith("cuLaunch") and "HostFunc" not in n)
        graphs = sum(c["forwarded"] for n, c in calls.items() if n.startswith("cuGraphLaunch"))
        # After a fault the executor makes none.
        if tenant["sticky_error"] == 0:
            assert tenant["launches"] >= forwarded and (tenant["launches"] > 0) == (forwarded + graphs > 0)


# Faults are the local driver's there, and their cases take long.
@pytest.mark.parametrize("name", sorted(CASES.keys() - {"faults_by_kind", "faults_by_call"}))
def test_in_local_mode(name: str, native_results, tmp_path):
    """Nothing is refused there, and launches are counted."""
    if name not in native_results:
        test_native(name, native_results)
    report = tmp_path / "report.json"
    done = shimmed([sys.executable, "cases.py", name], report, "local")
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout) == native_results[name]
    assert done.stderr == "", "the user's stderr stays clean"
    tenants = json.loads(report.read_text())["tenants"]
    assert tenants and all(tenant["mode"] == "local" for tenant in tenants)


@pytest.mark.parametrize("name", sorted(NATIVE_ONLY))
def test_refused_under_the_shim(name: str):
    """What is not served is an error by name, never a call that reaches the driver on its own."""
    done = shimmed([sys.executable, "cases.py", name])
    assert done.returncode != 0 and done.stdout == ""
    assert "CUDA_ERROR_NOT_SUPPORTED" in done.stderr


class TestProcesses:
    """Programs that start, fork, exec and link in every way: each sees what it would see without LightOS."""

    def same(self, command: list[str], **kwargs):
        native, ours = run(command), shimmed(command)
        assert (ours.returncode, ours.stdout, ours.stderr) == (native.returncode, native.stdout, native.stderr)
        return native

    def test_python_without_cuda(self):
        assert self.same(["python3", "-c", "print(1)"]).stdout == "1\n"

    def test_bash(self):
        assert self.same(["bash", "-c", "echo a | cat; ls / >/dev/null; exit 3"]).returncode == 3

    def test_fork(self):
        program = "import os\npid = os.fork()\nif pid == 0:\n  os._exit(7)\nprint(os.waitpid(pid, 0)[1] >> 8)"
        assert self.same(["python3", "-c", program]).stdout == "7\n"

    def test_fork_after_cuda(self):
        """The child of a CUDA process cannot use CUDA; the parent goes on."""
        program = (
            "import os, sys\nfrom device import Session, ok, driver, code\nimport numpy as np\ngpu = Session()\n"
            "p = gpu.upload(np.arange(4)); sys.stdout.flush()\npid = os.fork()\n"
            "if pid == 0:\n  print(code(driver.cuMemAlloc(64)), flush=True); os._exit(0)\n"
            "os.waitpid(pid, 0)\nprint(gpu.download(p, 4, np.int64).tolist())"
        )
        assert self.same([sys.executable, "-c", program]).stdout == "CUDA_ERROR_NOT_INITIALIZED\n[0, 1, 2, 3]\n"

    def test_exec(self):
        program = "import os\nos.execvp('python3', ['python3', '-c', 'print(2)'])"
        assert self.same(["python3", "-c", program]).stdout == "2\n"

    def test_exec_after_cuda(self):
        program = (
            "import os, sys\nfrom device import Session\nSession()\n"
            f"os.execv(sys.executable, [sys.executable, 'cases.py', 'reduction'])"
        )
        assert self.same([sys.executable, "-c", program]).returncode == 0

    def test_dlopen_by_path(self, tmp_path):
        report = tmp_path / "report.json"
        program = (
            "import ctypes, sys\n"
            f"cuda = ctypes.CDLL({SOFTGPU!r} + '/libcuda.so.1')\n"
            "v = ctypes.c_int(); print(cuda.cuInit(0), cuda.cuDriverGetVersion(ctypes.byref(v)), v.value)\n"
            "d = ctypes.c_uint64(); c = ctypes.c_void_p()\n"
            "cuda.cuDevicePrimaryCtxRetain(ctypes.byref(c), 0); cuda.cuCtxSetCurrent(c)\n"
            "print(cuda.cuMemAlloc_v2(ctypes.byref(d), ctypes.c_size_t(4096)), cuda.cuMemsetD8_v2(d, 3, ctypes.c_size_t(4096)))\n"
        )
        self.same(["python3", "-c", program])
        done = shimmed(["python3", "-c", program], report)
        assert done.returncode == 0
        calls = json.loads(report.read_text())["tenants"][0]["calls"]
        assert calls["cuMemAlloc_v2"]["forwarded"] == 1

    def test_printf_and_assert(self):
        """What kernels say is where the program's own output is, a failed assertion on standard error."""
        program = (
            "from device import Session, driver, ok, code\n"
            "import ctypes, sys\ngpu = Session()\n"
            "f = gpu.function('extern \"C\" __device__ void __assertfail(const char*, const char*, unsigned, const char*, size_t);'\n"
            "  'extern \"C\" __global__ void say(int n) { printf(\"thread %d of %s: %.2f\\\\n\", threadIdx.x, \"all\", n * 0.5);'\n"
            "  'if (n < 0) __assertfail(\"n >= 0\", \"say.cu\", 7, \"say\", 1); }', 'say')\n"
            "gpu.launch(f, (1,), (2,), ctypes.c_int(3)); gpu.synchronize()\n"
            "gpu.launch(f, (1,), (1,), ctypes.c_int(-1))\n"
            "sys.exit(int(driver.cuCtxSynchronize()[0]))"
        )
        done = self.same([sys.executable, "-c", program])
        # CUDA_ERROR_ASSERT.
        assert done.returncode == 710 & 255
        assert done.stdout == "thread 0 of all: 1.50\nthread 1 of all: 1.50\nthread 0 of all: -0.50\n"
        assert "n >= 0" in done.stderr and "say.cu:7" in done.stderr

    def test_linked_directly(self, tmp_path):
        source = tmp_path / "linked.c"
        source.write_text(
            "#include <stdio.h>\n"
            "int cuInit(unsigned); int cuDeviceGet(int*, int); int cuDevicePrimaryCtxRetain(void**, int);\n"
            "int cuCtxSetCurrent(void*); int cuMemAlloc_v2(unsigned long long*, unsigned long);\n"
            "int cuMemsetD32_v2(unsigned long long, unsigned, unsigned long);\n"
            "int cuMemcpyDtoH_v2(void*, unsigned long long, unsigned long);\n"
            "int main(void) { int d; void* c; unsigned long long p; unsigned out[4];\n"
            '  printf("%d", cuInit(0)); printf(" %d", cuDeviceGet(&d, 0));\n'
            '  printf(" %d", cuDevicePrimaryCtxRetain(&c, d)); printf(" %d", cuCtxSetCurrent(c));\n'
            '  printf(" %d", cuMemAlloc_v2(&p, 16)); printf(" %d", cuMemsetD32_v2(p, 77, 4));\n'
            '  printf(" %d", cuMemcpyDtoH_v2(out, p, 16)); printf(" %u\\n", out[3]); return 0; }\n'
        )
        binary = tmp_path / "linked"
        subprocess.run(["cc", "-o", binary, source, f"-L{SOFTGPU}", "-l:libcuda.so.1"], check=True)
        assert self.same([str(binary)]).stdout == "0 0 0 0 0 0 0 77\n"
        report = tmp_path / "report.json"
        shimmed([str(binary)], report)
        calls = json.loads(report.read_text())["tenants"][0]["calls"]
        assert calls["cuMemAlloc_v2"]["forwarded"] == 1

    def test_exit_status_of_a_signal(self):
        assert shimmed(["bash", "-c", "kill -TERM $$"]).returncode == 128 + 15


class TestWithoutSidecar:
    """The bare form, with nobody listening."""

    def bare(self, **extra):
        env = environment() | {"LD_PRELOAD": os.environ["LIGHTOS_INTERCEPT"], "LIGHTOS_SOCKET": "/nonexistent/socket"} | extra
        return subprocess.run([sys.executable, "cases.py", "reduction"], env=env, capture_output=True, text=True, cwd=HERE, timeout=120)

    def test_fails_open_with_one_warning(self):
        done = self.bare()
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("\n") == 1 and "lightos" in done.stderr.lower()

    def test_off_is_silent(self):
        done = self.bare(LIGHTOS_DISPATCH="off")
        assert (done.returncode, done.stderr) == (0, "")

    def test_required(self):
        done = self.bare(LIGHTOS_REQUIRE="1")
        assert done.returncode != 0 and "CUDA_ERROR_SYSTEM_NOT_READY" in done.stderr

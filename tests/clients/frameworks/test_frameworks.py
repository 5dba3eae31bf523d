"""Frameworks that need only the driver API, natively on the software GPU and under the shim: the same bits.

Environment: LIGHTOS_BIN and SOFTGPU_LIB, as in the client suite. `cargo xtask test --clients` sets both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tiny import PROGRAMS

HERE = Path(__file__).parent
LIGHTOS = os.environ["LIGHTOS_BIN"]
SOFTGPU = os.environ["SOFTGPU_LIB"]
TOOLKIT = Path(sysconfig.get_path("purelib"), "nvidia/cu13")


def run(command: list[str]) -> subprocess.CompletedProcess:
    env = {k: v for k, v in os.environ.items() if not k.startswith("LIGHTOS_") and k != "LD_PRELOAD"}
    # A cache of compiled kernels would let the second run skip what the first one did.
    env |= {"LD_LIBRARY_PATH": f"{SOFTGPU}:{TOOLKIT / 'lib'}", "CUDA_PATH": str(TOOLKIT), "DEV": "CUDA", "CACHELEVEL": "0"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, cwd=HERE)


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_same_bits(name: str, tmp_path):
    command, report = [sys.executable, "tiny.py", name], tmp_path / "report.json"
    native = run(command)
    assert native.returncode == 0, native.stderr[-3000:]
    ours = run([LIGHTOS, "run", "--softgpu", "--report", str(report), "--", *command])
    assert (ours.returncode, ours.stderr) == (0, ""), ours.stderr[-3000:]
    assert json.loads(ours.stdout) == json.loads(native.stdout)
    tenants = json.loads(report.read_text())["tenants"]
    assert tenants and all(t["sticky_error"] == 0 for t in tenants)
    assert sum(t["launches"] for t in tenants) > 0, "the kernels ran at the executor"
    if name == "jit":
        assert sum(t["graph_launches"] for t in tenants) > 0, "the graph ran at the executor"

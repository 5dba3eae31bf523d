"""What LightOS adds to a program's start, and to the device memory it takes: a small PyTorch program, natively and under LightOS
in alternation.

    python3 tests/gpu/startup.py --dist dist --out docs/results [--rounds 7]

Writes <out>/<gpu>-startup.json and .md. Times are of whole processes; `cuda_s` counts from the first CUDA call to the first result.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from frameworks import gpu_name, slug

PROGRAM = """
import time, sys, torch
start = time.perf_counter()
torch.zeros(1).cuda()
torch.cuda.synchronize()
print(time.perf_counter() - start, flush=True)
sys.stdin.read()
"""


def used_mib() -> float:
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    return float(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0])


def once(prefix: list[str]) -> dict[str, float]:
    """One start: seconds to the first result, seconds of those in CUDA, MiB of device memory taken meanwhile."""
    before = used_mib()
    start = time.perf_counter()
    process = subprocess.Popen([*prefix, sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    cuda_s = float(process.stdout.readline())
    total_s = time.perf_counter() - start
    taken = used_mib() - before
    ending = time.perf_counter()
    process.communicate("", timeout=60)
    return {"start_s": total_s, "cuda_s": cuda_s, "end_s": time.perf_counter() - ending, "device_mib": taken}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dist", type=Path, default=Path("dist"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    gpu = gpu_name()
    sides = {"native": [], "lightos": [str(arguments.dist.resolve() / "lightos"), "run", "--"]}
    once([])  # the first start reads everything from disk
    rounds = {side: [] for side in sides}
    for _ in range(arguments.rounds):
        for side, prefix in sides.items():
            rounds[side].append(once(prefix))
    (arguments.out / f"{slug(gpu)}-startup.json").write_text(json.dumps({"gpu": gpu, "rounds": rounds}, indent=1) + "\n")
    lines = [f"# Start-up on {gpu}", "", "`import torch; torch.zeros(1).cuda()`, medians of "
             f"{arguments.rounds} rounds, native and LightOS alternated (min–max). Command: `python3 tests/gpu/startup.py`.", "",
             "| figure | native | LightOS | difference |", "| --- | --- | --- | --- |"]
    for figure in rounds["native"][0]:
        native, ours = ([r[figure] for r in rounds[side]] for side in ("native", "lightos"))
        cells = [f"{median(v):.3f} ({min(v):.3f}–{max(v):.3f})" for v in (native, ours)]
        lines.append(f"| {figure} | {cells[0]} | {cells[1]} | {median(ours) - median(native):+.3f} |")
    (arguments.out / f"{slug(gpu)}-startup.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines[4:]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Launch cost natively and under LightOS, alternated; medians with spread.

    python3 tests/gpu/launch_cost.py --dist dist --out docs/results
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from frameworks import gpu_name, slug

HERE = Path(__file__).resolve().parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dist", type=Path, default=Path("dist"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--softgpu", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    lightos = str(arguments.dist.resolve() / "lightos")
    with tempfile.TemporaryDirectory() as scratch:
        binary = f"{scratch}/launch_cost"
        subprocess.run(["cc", "-O2", "-o", binary, str(HERE / "launch_cost.c"), "-ldl"], check=True)
        soft = ["--softgpu"] if arguments.softgpu else []
        ways = {"native": [lightos, "run", *soft, "--dispatch", "off", "--", binary], "lightos": [lightos, "run", *soft, "--", binary]}
        runs: dict[str, list[dict]] = {way: [] for way in ways}
        for _ in range(arguments.rounds):
            for way, command in ways.items():
                done = subprocess.run(command, capture_output=True, text=True, timeout=120)
                if done.returncode:
                    print(f"{way}: {done.stderr[-2000:]}", file=sys.stderr)
                    return 1
                runs[way].append(json.loads(done.stdout))
    rows = []
    for figure in runs["native"][0]:
        native, ours = ([r[figure] for r in runs[way]] for way in ("native", "lightos"))
        ratios = sorted(o / n for n, o in zip(native, ours))
        rows.append({"figure": figure, "native": median(native), "lightos": median(ours), "ratio": round(median(ratios), 3),
                     "ratio_min": round(ratios[0], 3), "ratio_max": round(ratios[-1], 3)})
        print(f"{figure:18} native {median(native):10.1f}  lightos {median(ours):10.1f}  x{median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})")
    gpu = "software GPU" if arguments.softgpu else gpu_name()
    (arguments.out / f"{slug(gpu)}-launch-cost.json").write_text(json.dumps({"gpu": gpu, "rounds": arguments.rounds, "figures": rows, "raw": runs}, indent=1) + "\n")
    command = " ".join(["python3 tests/gpu/launch_cost.py --dist dist --out docs/results --rounds", str(arguments.rounds), *soft])
    lines = [f"# Launch cost on the {gpu}", "", f"Command: `{command}`. Nanoseconds, medians; native and LightOS alternated.", "",
             "| figure | native | LightOS | ratio (min–max) |", "| --- | --- | --- | --- |"]
    lines += [f"| {r['figure']} | {r['native']:.0f} | {r['lightos']:.0f} | {r['ratio']:.2f} ({r['ratio_min']:.2f}–{r['ratio_max']:.2f}) |" for r in rows]
    (arguments.out / f"{slug(gpu)}-launch-cost.md").write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

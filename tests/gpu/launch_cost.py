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
        ways = {"native": [lightos, "run", *soft, "--dispatch", "off", "--", binary], "lightos": [lightos, "run", *soft, "--", binary],
                "local": [lightos, "run", *soft, "--dispatch", "local", "--", binary]}
        runs: dict[str, list[dict]] = {way: [] for way in ways}
        for _ in range(arguments.rounds):
            for way, command in ways.items():
                done = subprocess.run(command, capture_output=True, text=True, timeout=120)
                if done.returncode:
                    print(f"{way}: {done.stderr[-2000:]}", file=sys.stderr)
                    return 1
                runs[way].append(json.loads(done.stdout))
    rows = []
    hook = [r.pop("hook_ns") for r in runs["local"]]
    print(f"local mode adds {median(hook):.1f} ns to a launch ({min(hook):.1f}-{max(hook):.1f})")
    for figure in runs["native"][0]:
        if figure == "hook_ns":
            continue
        native, ours, local = ([r[figure] for r in runs[way]] for way in ("native", "lightos", "local"))
        ratios = sorted(o / n for n, o in zip(native, ours))
        rows.append({"figure": figure, "native": median(native), "lightos": median(ours), "ratio": round(median(ratios), 3),
                     "ratio_min": round(ratios[0], 3), "ratio_max": round(ratios[-1], 3), "local": median(local),
                     "local_added": round(median(l - n for n, l in zip(native, local)), 1)})
        print(f"{figure:18} native {median(native):10.1f}  lightos {median(ours):10.1f}  x{median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})"
              f"  local {median(local):10.1f} ({rows[-1]['local_added']:+.1f})")
    gpu = "software GPU" if arguments.softgpu else gpu_name()
    (arguments.out / f"{slug(gpu)}-launch-cost.json").write_text(json.dumps({"gpu": gpu, "rounds": arguments.rounds, "local_hook_ns": hook, "figures": rows, "raw": runs}, indent=1) + "\n")
    command = " ".join(["python3 tests/gpu/launch_cost.py --dist dist --out docs/results --rounds", str(arguments.rounds), *soft])
    lines = [f"# Launch cost on the {gpu}", "", f"Command: `{command}`. Nanoseconds, medians; native, LightOS and local mode alternated.", "",
             "| figure | native | LightOS | ratio (min–max) | local mode | added |", "| --- | --- | --- | --- | --- | --- |"]
    lines += [f"| {r['figure']} | {r['native']:.0f} | {r['lightos']:.0f} | {r['ratio']:.2f} ({r['ratio_min']:.2f}–{r['ratio_max']:.2f}) | {r['local']:.0f} | {r['local_added']:+.0f} |" for r in rows]
    lines += ["", f"Local mode adds {median(hook):.0f} ns to a launch ({min(hook):.0f}–{max(hook):.0f}): the hooked entry point and the driver's own, called in alternation in one process."]
    (arguments.out / f"{slug(gpu)}-launch-cost.md").write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Frameworks on real hardware: each case natively and under LightOS in alternation, compared bit for bit.

    python3 tests/gpu/frameworks.py --dist dist --out results

Writes <out>/<gpu>-frameworks.json (everything) and .md (a table). A suite runs native, ours, native, ours, ...; a case counts as
deterministic where the native runs agree bit for bit, and must then be identical under LightOS. A process that dies or
hangs costs only the case it was in: the rest is run in a fresh one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import geometric_mean, median

HERE = Path(__file__).resolve().parent
# Suites by name: the cases' file and the environment. XLA chooses among kernels by their measured time, so two runs may round
# differently; without that choice every run is the same program.
SUITES = {
    "torch": ("torch", {}),
    "jax": ("jax", {}),
    "jax-not-autotuned": ("jax", {"XLA_FLAGS": "--xla_gpu_autotune_level=0"}),
    "cupy": ("cupy", {}),
}


def gpu_name() -> str:
    """Name and driver of the first GPU as nvidia-smi gives them; "unknown" where there is none."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return lines[0].strip() if lines else "unknown"


def cases_of(suite: str) -> list[str]:
    names = []
    for line in (HERE / f"cases_{suite}.py").read_text().splitlines():
        if names and names[-1] is None and line.startswith("def "):
            names[-1] = line[4:].split("(")[0]
        elif line == "@case":
            names.append(None)
    return names


def run_suite(name: str, cases: list[str], dist: Path | None, scratch: Path, limit_s: int, extra: dict) -> dict[str, dict]:
    """One pass over `cases`; natively where `dist` is None."""
    suite, environment = SUITES[name]
    results, waiting, attempts = {}, list(cases), 0
    while waiting and attempts <= len(cases):
        attempts += 1
        out = scratch / f"{suite}-{time.monotonic_ns()}.jsonl"
        report = out.with_suffix(".report.json")
        command = [sys.executable, str(HERE / "runner.py"), suite, "--cases", ",".join(waiting), "--out", str(out)]
        env = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTHONUNBUFFERED": "1"} | extra | environment
        if dist:
            env["LIGHTOS_BIN"] = str(dist / "lightos")
            command = [str(dist / "lightos"), "run", "--report", str(report), "--", *command]
        log = out.with_suffix(".log")
        with open(log, "w") as sink:
            try:
                code = subprocess.run(command, env=env, stdout=sink, stderr=subprocess.STDOUT, timeout=limit_s).returncode
                why = f"exit status {code}"
            except subprocess.TimeoutExpired:
                why = f"no end within {limit_s} s"
        lines = [json.loads(l) for l in out.read_text().splitlines()] if out.exists() else []
        started = [l["case"] for l in lines if l.get("started")]
        for line in lines:
            if not line.get("started"):
                results[line["case"]] = line
        text = log.read_text()
        if report.exists():
            told = json.loads(report.read_text())
            told.pop("command", None)  # paths of this machine
            results.setdefault("_reports", {})[str(attempts)] = told
        broken = [c for c in started if c not in results] or ([waiting[0]] if not started else [])
        for case in broken:
            results[case] = {"case": case, "ok": False, "error": why, "log": text[-2500:]}
        for case in started:
            if not results[case]["ok"]:
                results[case].setdefault("log", text[-2500:])
        # A sticky CUDA error poisons what follows in the same process: run those again in a fresh one.
        failed = [i for i, c in enumerate(waiting) if c in broken or (c in results and "CUDA" in results[c].get("error", ""))]
        if failed:
            again = waiting[failed[0] + 1 :]
            for case in again:
                results.pop(case, None)
            waiting = again
        else:
            waiting = [c for c in waiting if c not in results]
    return results


def judge(native: list[dict], ours: list[dict], name: str) -> dict:
    n, o = [r.get(name, {"ok": False, "error": "not run"}) for r in native], [r.get(name, {"ok": False, "error": "not run"}) for r in ours]
    row = {"case": name, "native": n, "lightos": o}
    deterministic = all(r["ok"] for r in n) and len({r["sha256"] for r in n}) == 1
    if not all(r["ok"] for r in n):
        row["verdict"] = "native fails"
    elif not all(r["ok"] for r in o):
        row["verdict"] = "FAILS: " + next(r["error"] for r in o if not r["ok"])
    elif any(r.get("launches", 1) + r.get("graph_launches", 0) == 0 for r in o):
        row["verdict"] = "FAILS: no launch was forwarded"
    elif not deterministic:
        row["verdict"] = "runs (native differs from itself)"
    elif {r["sha256"] for r in o} == {n[0]["sha256"]}:
        row["verdict"] = "bit-identical"
    else:
        row["verdict"] = "DIFFERENT"
    if all(r["ok"] for r in n + o):
        ratios = sorted(b["step_ms"] / a["step_ms"] for a, b in zip(n, o))
        row |= {"native_ms": median(r["step_ms"] for r in n), "lightos_ms": median(r["step_ms"] for r in o),
                "ratio": round(median(ratios), 3), "ratio_min": round(ratios[0], 3), "ratio_max": round(ratios[-1], 3),
                "launches": o[0].get("launches")}
    return row


def table(suites: dict[str, list[dict]], head: str) -> str:
    lines = [head, "", "| suite | case | result | launches forwarded | native ms/step | LightOS ms/step | ratio (min–max) |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for suite, rows in suites.items():
        for r in rows:
            numbers = f"{r['launches']} | {r['native_ms']:.3f} | {r['lightos_ms']:.3f} | {r['ratio']:.2f} ({r['ratio_min']:.2f}–{r['ratio_max']:.2f})" if "ratio" in r else "– | – | – | –"
            lines.append(f"| {suite} | {r['case']} | {r['verdict'].splitlines()[0][:120]} | {numbers} |")
    lines.append("")
    for suite, rows in suites.items():
        if ratios := [r["ratio"] for r in rows if "ratio" in r]:
            lines.append(f"{suite}: geometric mean of the ratios {geometric_mean(ratios):.3f}.")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dist", type=Path, default=Path("dist"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--suites", default=",".join(SUITES))
    parser.add_argument("--cases", default="", help="comma-separated; all by default")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--limit", type=int, default=150, help="seconds one process may take")
    parser.add_argument("--ours-only", action="store_true", help="skip the native runs (for debugging)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    gpu = gpu_name()
    document = {"gpu": gpu, "rounds": arguments.rounds, "suites": {}, "reports": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for suite in arguments.suites.split(","):
            cases = [c for c in cases_of(SUITES[suite][0]) if not arguments.cases or c in arguments.cases.split(",")]
            native, ours = [], []
            extra = {"TORCHINDUCTOR_CACHE_DIR": f"{scratch}/inductor", "TRITON_CACHE_DIR": f"{scratch}/triton"}
            for _ in range(arguments.rounds):
                if not arguments.ours_only:
                    native.append(run_suite(suite, cases, None, Path(scratch), arguments.limit, extra))
                ours.append(run_suite(suite, cases, arguments.dist.resolve(), Path(scratch), arguments.limit, extra))
            document["reports"][suite] = [r.pop("_reports", {}) for r in ours]
            rows = [judge(native or ours, ours, name) for name in cases]
            document["suites"][suite] = rows
            for row in rows:
                ratio = f"  x{row['ratio']:.2f}  launches {row['launches']}" if "ratio" in row else ""
                print(f"{suite:17} {row['case']:36} {row['verdict'].splitlines()[0][:200]}{ratio}", flush=True)
                if row["verdict"].startswith("FAILS") or row["verdict"] == "native fails":
                    bad = next((r for r in row["lightos"] + row["native"] if not r["ok"]), None)
                    print("    " + (bad or {}).get("log", "")[-1500:].replace("\n", "\n    "), flush=True)
    slug = gpu.split(",")[0].lower().replace("nvidia ", "").replace(" ", "-")
    (arguments.out / f"{slug}-frameworks.json").write_text(json.dumps(document, indent=1) + "\n")
    head = f"# Frameworks on {gpu}\n\nCommand: `python3 tests/gpu/frameworks.py --dist dist --out docs/results --rounds {arguments.rounds}`. Native and LightOS alternated; medians."
    (arguments.out / f"{slug}-frameworks.md").write_text(table(document["suites"], head))
    bad = [r for rows in document["suites"].values() for r in rows if r["verdict"].startswith(("FAILS", "DIFFERENT"))]
    print(f"{sum(len(r) for r in document['suites'].values()) - len(bad)} passed, {len(bad)} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

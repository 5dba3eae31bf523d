"""Programs on real hardware: each case natively and under LightOS in alternation, compared bit for bit.

    python3 tests/gpu/frameworks.py --dist dist --out results [--mode local] [--suites torch,models]

Writes <out>/<gpu>-frameworks.json (everything) and .md (a table); a part of the suites or another mode than `sidecar` adds its name to the
files'. A suite runs native, ours, native, ours, ...; a case counts as deterministic where the native runs agree bit for bit, and must
then be identical under LightOS. A process that dies or hangs costs only the case it was in: the rest is run in a fresh one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from statistics import geometric_mean, median

HERE = Path(__file__).resolve().parent
# Suites by name: the cases' file and the environment. XLA chooses among kernels by their measured time, so two runs may round
# differently; without that choice every run is the same program.
NOT_AUTOTUNED = {"XLA_FLAGS": "--xla_gpu_autotune_level=0"}
SUITES = {
    "torch": ("torch", {}),
    "models": ("models", {}),
    "serving": ("serving", {}),
    "compile": ("compile", {}),
    "loading": ("loading", {}),
    "jax": ("jax", {}),
    "jax-not-autotuned": ("jax", NOT_AUTOTUNED),
    "jax-programs": ("jax_programs", NOT_AUTOTUNED),
    "cupy": ("cupy", {}),
    "numba-programs": ("numba", {}),
    "native": ("native", {}),
}
# Where calls go: to the executor, to the process's own driver under the sidecar's policy, or as each process needs.
MODES = ("sidecar", "local", "auto")


def gpu_name() -> str:
    """Name and driver of the first GPU as nvidia-smi gives them; "unknown" where there is none."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return lines[0].strip() if lines else "unknown"


def slug(gpu: str) -> str:
    """A name for files: "NVIDIA H100 80GB HBM3, 580.159.04" is h100-80gb-hbm3."""
    return gpu.split(",")[0].lower().replace("nvidia ", "").replace(" ", "-")


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def cases_of(suite: str) -> list[str]:
    """Of a suite, in order; read from the text, because this process need not have the packages."""
    return re.findall(r"^@case\b.*\ndef (\w+)\(", (HERE / f"cases_{suite}.py").read_text(), re.MULTILINE)


def lines_of(out: Path) -> list[dict]:
    """What the runner has written; a process that was killed may leave half a line."""
    text = out.read_text() if out.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def run_process(command: list[str], env: dict, log: Path, out: Path, limit_s: int) -> str:
    """Runs to the end, or until no case has begun or ended for `limit_s`; how it ended."""
    with open(log, "w") as sink:
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True)
    seen, since = -1, time.monotonic()
    while True:
        try:
            return f"exit status {process.wait(0.2)}"
        except subprocess.TimeoutExpired:
            size = out.stat().st_size if out.exists() else 0
            if size != seen:
                seen, since = size, time.monotonic()
            elif time.monotonic() - since > limit_s:
                # The case's own processes too. A private sidecar ends with `lightos run`.
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return f"no end within {limit_s} s"


def add_processes(results: list[dict], report: dict) -> None:
    """Counts what the programs that a case started have launched: they ended before `lightos status` could tell."""
    launches = {}
    for tenant in report["tenants"]:
        launches[tenant["pid"]] = launches.get(tenant["pid"], 0) + tenant["launches"]
    modes = {tenant["pid"]: str(tenant["mode"]).lower() for tenant in report["tenants"] if "mode" in tenant}
    for result in results:
        pids = result.get("processes", [])
        if pids and result["ok"]:
            result["launches"] = result.get("launches", 0) + sum(launches.get(pid, 0) for pid in pids)
            served = {modes[pid] for pid in pids if pid in modes}
            if "mode" not in result and len(served) == 1:
                result["mode"] = served.pop()


def is_refusal(error: str) -> bool:
    """Whether it is CUDA_ERROR_NOT_SUPPORTED, by which LightOS says what it does not carry, in a library's words."""
    return "notsupported" in error.lower().replace("_", "").replace(" ", "")


def is_poison(error: str) -> bool:
    """Whether the rest of the process may suffer: a CUDA error may stick."""
    return "CUDA" in error and not is_refusal(error)


def run_suite(name: str, cases: list[str], prefix: list[str], scratch: Path, limit_s: int, lightos: Path | None = None) -> dict[str, dict]:
    """One pass over `cases`, behind `prefix`, in which the word REPORT stands for a file; under LightOS where its binary is given."""
    suite, environment = SUITES[name]
    results, waiting, attempts = {}, list(cases), 0
    while waiting and attempts <= len(cases):
        attempts += 1
        out = scratch / f"{suite}-{time.monotonic_ns()}.jsonl"
        report, log = out.with_suffix(".report.json"), out.with_suffix(".log")
        command = [sys.executable, str(HERE / "runner.py"), suite, "--cases", ",".join(waiting), "--out", str(out)]
        env = os.environ | {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "PYTHONUNBUFFERED": "1", "LIGHTOS_CASES_SCRATCH": str(scratch),
                            "TORCHINDUCTOR_CACHE_DIR": f"{scratch}/inductor", "TRITON_CACHE_DIR": f"{scratch}/triton"} | environment
        if lightos:
            env["LIGHTOS_BIN"] = str(lightos)
        way = [word.replace("REPORT", str(report)) for word in prefix]
        why = run_process([*way, *command], env, log, out, limit_s)
        lines, text = lines_of(out), log.read_text(errors="replace")
        started = [line["case"] for line in lines if line.get("started")]
        results |= {line["case"]: line for line in lines if not line.get("started")}
        if report.exists() and (told := report.read_text()):
            told = json.loads(told)
            told.pop("command", None)  # paths of this machine
            results.setdefault("_reports", {})[str(attempts)] = told
            add_processes([results[c] for c in started if c in results], told)
        # A process that ends before its first case ends so for each of them.
        broken = [c for c in started if c not in results] or ([] if started else waiting)
        for case in broken:
            results[case] = {"case": case, "ok": False, "error": why, "log": text[-2500:]}
        for case in started:
            if "error" in results[case]:
                results[case].setdefault("log", text[-2500:])
        # What follows in the same process is run again in a fresh one.
        failed = [i for i, c in enumerate(waiting) if c in broken or (c in results and is_poison(results[c].get("error", "")))]
        again = waiting[failed[0] + 1 :] if failed and started else [c for c in waiting if c not in results]
        for case in again:
            results.pop(case, None)
        waiting = again
    return results


def faults(mode: str, runs: list[dict]) -> str | None:
    """What is wrong with the runs under LightOS beside their results."""
    for r in runs:
        if "skipped" in r:
            return "skipped under LightOS alone: " + r["skipped"]
        if not r["ok"]:
            return r["error"]
        if mode != "auto" and r.get("mode", mode) != mode:
            return f"was served in mode {r['mode']}"
        if "launches" not in r:
            return "was not served by the sidecar"
        if r["launches"] + r.get("graph_launches", 0) == 0:
            return "no launch was forwarded" if mode == "sidecar" else "no launch was governed"
    return None


def judge(native: list[dict], ours: list[dict], name: str, mode: str) -> dict:
    n, o = ([r.get(name, {"ok": False, "error": "not run"}) for r in side] for side in (native, ours))
    row = {"case": name, "what": n[0].get("what", ""), "native": n, "lightos": o}
    skipped = next((r["skipped"] for r in n if "skipped" in r), None)
    if skipped:
        row["verdict"] = f"skipped: {skipped}"
    elif not all(r["ok"] for r in n):
        row["verdict"] = "native fails: " + next(r["error"] for r in n if not r["ok"])
    elif fault := faults(mode, o):
        refused = any(is_refusal(r.get("error", "")) for r in o)
        row["verdict"] = f"refused: {fault}" if refused else f"FAILS: {fault}"
        row["may_refuse"] = refused and n[0].get("may_refuse", False)
    elif len({r["sha256"] for r in n}) > 1:
        row["verdict"] = "runs (native differs from itself)"
    elif {r["sha256"] for r in o} == {n[0]["sha256"]}:
        row["verdict"] = "bit-identical"
    else:
        row["verdict"] = "DIFFERENT"
    if all(r["ok"] for r in n + o):
        row["launches"] = o[0].get("launches")
    if all("step_ms" in r for r in n + o):
        ratios = sorted(b["step_ms"] / a["step_ms"] for a, b in zip(n, o))
        row |= {"native_ms": median(r["step_ms"] for r in n), "lightos_ms": median(r["step_ms"] for r in o),
                "ratio": round(median(ratios), 3), "ratio_min": round(ratios[0], 3), "ratio_max": round(ratios[-1], 3)}
    return row


def is_bad(row: dict) -> bool:
    return row["verdict"].startswith(("FAILS", "DIFFERENT", "refused")) and not row.get("may_refuse")


def cell(text: str) -> str:
    """As the cell of a Markdown table: one line, no bars."""
    return text.splitlines()[0][:120].replace("|", "/")


def table(suites: dict[str, list[dict]], head: str) -> str:
    lines = [head, "", "| suite | case | result | launches forwarded | native ms/step | LightOS ms/step | ratio (min–max) |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for suite, rows in suites.items():
        for r in rows:
            times = f"{r['native_ms']:.3f} | {r['lightos_ms']:.3f} | {r['ratio']:.2f} ({r['ratio_min']:.2f}–{r['ratio_max']:.2f})" if "ratio" in r else "– | – | –"
            launches = "–" if r.get("launches") is None else r["launches"]
            lines.append(f"| {suite} | {r['case']} | {cell(r['verdict'])} | {launches} | {times} |")
    lines.append("")
    for suite, rows in suites.items():
        if ratios := [r["ratio"] for r in rows if "ratio" in r]:
            lines.append(f"{suite}: geometric mean of the ratios {geometric_mean(ratios):.3f}.")
    return "\n".join(lines) + "\n"


def show(suite: str, row: dict) -> None:
    ratio = f"  x{row['ratio']:.2f}" if "ratio" in row else ""
    launches = f"  launches {row['launches']}" if row.get("launches") is not None else ""
    print(f"{suite:17} {row['case']:36} {row['verdict'].splitlines()[0][:200]}{ratio}{launches}", flush=True)
    for name, value in row["lightos"][0].get("notes", {}).items():
        print(f"    {name}: {value} (native: {row['native'][0].get('notes', {}).get(name)})", flush=True)
    if is_bad(row) or row["verdict"].startswith("native fails"):
        failed = next((r for r in row["lightos"] + row["native"] if "log" in r), {})
        print("    " + failed.get("log", "")[-1500:].replace("\n", "\n    "), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dist", type=Path, default=Path("dist"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--suites", default=",".join(SUITES))
    parser.add_argument("--cases", default="", help="comma-separated; all by default")
    parser.add_argument("--mode", choices=MODES, default="sidecar", help="where the calls of the runs under LightOS go")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--limit", type=int, default=120, help="seconds one case may take")
    parser.add_argument("--softgpu", action="store_true", help="on the software GPU, which runs the suite numba-programs")
    parser.add_argument("--untimed", action="store_true", help="keep no times: the machine does other work meanwhile")
    parser.add_argument("--ours-only", action="store_true", help="skip the native runs (for debugging)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    suites, wanted = arguments.suites.split(","), arguments.cases.split(",") if arguments.cases else []
    if unknown := [suite for suite in suites if suite not in SUITES]:
        parser.error(f"no suite {', '.join(unknown)}; there are {', '.join(SUITES)}")
    gpu, mode = "software GPU" if arguments.softgpu else gpu_name(), arguments.mode
    lightos = arguments.dist.resolve() / "lightos"
    start, soft = [str(lightos), "run"], ["--softgpu"] * arguments.softgpu
    natively = [*start, *soft, "--dispatch", "off", "--"] if soft else []
    ourselves = [*start, *soft, "--dispatch", mode, "--report", "REPORT", "--"]
    document = {"gpu": gpu, "mode": mode, "recorded": now(), "rounds": arguments.rounds, "suites": {}, "seconds": {}, "reports": {}}
    with tempfile.TemporaryDirectory() as scratch:
        for suite in suites:
            cases = [c for c in cases_of(SUITES[suite][0]) if not wanted or c in wanted]
            native, ours, started = [], [], time.monotonic()
            for _ in range(arguments.rounds):
                if not arguments.ours_only:
                    native.append(run_suite(suite, cases, natively, Path(scratch), arguments.limit))
                ours.append(run_suite(suite, cases, ourselves, Path(scratch), arguments.limit, lightos))
            document["seconds"][suite] = round(time.monotonic() - started, 1)
            document["reports"][suite] = [r.pop("_reports", {}) for r in ours]
            if arguments.untimed:
                forget_times(native + ours)
            document["suites"][suite] = [judge(native or ours, ours, name, mode) for name in cases]
            for row in document["suites"][suite]:
                show(suite, row)
            print(f"-- {suite}: {document['seconds'][suite]} s", flush=True)
            save(document, arguments, suites)
    rows = [row for rows in document["suites"].values() for row in rows]
    bad = sum(is_bad(row) for row in rows)
    skipped = sum(row["verdict"].startswith(("skipped", "native fails")) for row in rows)
    print(f"{len(rows) - bad - skipped} passed, {bad} failed, {skipped} skipped")
    return 1 if bad else 0


def forget_times(runs: list[dict]) -> None:
    for run in runs:
        for result in run.values():
            for key in [key for key in result if key.startswith("step_ms") or key == "first_s"]:
                del result[key]


def save(document: dict, arguments, suites: list[str]) -> None:
    """After each suite, so that a run that is cut short leaves what it has."""
    parts = [] if set(suites) == set(SUITES) else suites
    name = "-".join([slug(document["gpu"]), "frameworks", *parts, *([document["mode"]] if document["mode"] != "sidecar" else [])])
    without_logs = json.loads(json.dumps(document), object_hook=lambda o: {k: v for k, v in o.items() if k != "log"})
    (arguments.out / f"{name}.json").write_text(json.dumps(without_logs, indent=1) + "\n")
    options = [f"--suites {','.join(suites)}"] * bool(parts) + [f"--mode {document['mode']}"] * (document["mode"] != "sidecar") + ["--softgpu"] * arguments.softgpu + ["--untimed"] * arguments.untimed
    command = " ".join(["python3 tests/gpu/frameworks.py --dist dist --out docs/results --rounds", str(document["rounds"]), *options])
    head = f"# Programs on {document['gpu']}, mode {document['mode']}\n\nCommand: `{command}`. Native and LightOS alternated; medians."
    (arguments.out / f"{name}.md").write_text(table(document["suites"], head))


if __name__ == "__main__":
    sys.exit(main())

"""Programs on two GPUs: natively, under `local` dispatch, under a duty, and without a mode (`auto`), compared bit for bit.

    python3 tests/gpu/multi_gpu.py --dist dist --out docs/results

Also: a sidecar that is killed in the middle of a training run, and what `sidecar` mode says of a program that it cannot carry.
Writes <out>/<gpu>-multi-gpu.json and .md. NVLink multicast stays off.
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
from statistics import median

from frameworks import gpu_name, now, slug

HERE = Path(__file__).resolve().parent
LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
PROGRAMS = {"all_reduce": LAUNCHER, "ddp": LAUNCHER, "pipeline": [sys.executable], "pmap": [sys.executable], "peers": [sys.executable]}
SAFE = {"NCCL_NVLS_ENABLE": "0", "TORCH_SYMM_MEM_DISABLE_MULTICAST": "1", "NVSHMEM_DISABLE_NVLS": "1",
        "XLA_FLAGS": "--xla_gpu_autotune_level=0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "OMP_NUM_THREADS": "4"}
LIMIT_S = 150
ADVICE = "LIGHTOS_DISPATCH=local"
# Programs whose memory lies with the executor before they show that they need a second device.
TOO_LATE = {"pipeline"}


def command(name: str) -> list[str]:
    return [*PROGRAMS[name], str(HERE / "multi_gpu_programs.py"), name]


def read(done: subprocess.CompletedProcess) -> dict:
    lines = [line[7:] for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or len(lines) != 1:
        return {"ok": False, "error": f"exit status {done.returncode}", "log": (done.stdout + done.stderr)[-3000:]}
    return {"ok": True, "stderr_of_lightos": [l for l in done.stderr.splitlines() if l.startswith("lightos:")]} | json.loads(lines[0])


def run(name: str, prefix: list[str], scratch: Path) -> dict:
    report = scratch / "report.json"
    report.unlink(missing_ok=True)
    prefix = [part if part != "REPORT" else str(report) for part in prefix]
    try:
        done = subprocess.run([*prefix, *command(name)], env=os.environ | SAFE, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return {"ok": False, "error": f"no end within {LIMIT_S} s"}
    result = read(done)
    if report.exists():
        keep = ("mode", "launches", "graph_launches", "held_seconds", "duty_percent")
        result["tenants"] = [{key: t[key] for key in keep} for t in json.loads(report.read_text())["tenants"]]
    return result


def killed(dist: Path, scratch: Path) -> dict:
    """The training run with a sidecar that is killed after a third of the steps."""
    socket, mark = scratch / "lightos.sock", scratch / "mark"
    log = open(scratch / "sidecar.log", "w")
    sidecar = subprocess.Popen([str(dist / "lightos"), "sidecar", "--socket", str(socket), "--config", "/dev/null"], stderr=log)
    while not socket.exists():
        time.sleep(0.01)
    environment = os.environ | SAFE | {"LD_PRELOAD": str(dist / "liblightos_intercept.so"), "LIGHTOS_SOCKET": str(socket),
                                       "LIGHTOS_DISPATCH": "local", "LIGHTOS_REQUIRE": "1", "MARK": str(mark)}
    program = subprocess.Popen(command("ddp"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + LIMIT_S
    while not mark.exists() and program.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    sidecar.kill()
    sidecar.wait()
    Path(f"{mark}.go").touch()
    try:
        stdout, stderr = program.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        program.kill()
        stdout, stderr = program.communicate()
    return read(subprocess.CompletedProcess(program.args, program.returncode, stdout, stderr))


def judge(name: str, runs: dict[str, list[dict]]) -> dict:
    want = {r.get("sha256") for r in runs["native"]}
    row = {"program": name, "runs": runs, "verdicts": {}}
    for way, results in runs.items():
        if way == "auto" and name in TOO_LATE:
            advice = all(not r["ok"] and ADVICE in r["log"] for r in results)
            row["verdicts"][way] = f"says to set {ADVICE}" if advice else "FAILS: gives no advice"
        elif not all(r["ok"] for r in results):
            row["verdicts"][way] = "FAILS: " + next(r["error"] for r in results if not r["ok"])
        elif way != "native":
            got = {r["sha256"] for r in results}
            row["verdicts"][way] = "bit-identical" if got == want and len(want) == 1 else "runs" if len(want) > 1 else "DIFFERENT"
    if all(r["ok"] for r in runs["native"] + runs["local"]):
        ratios = sorted(o["step_ms"] / n["step_ms"] for n, o in zip(runs["native"], runs["local"]))
        row |= {"native_ms": median(r["step_ms"] for r in runs["native"]), "local_ms": median(r["step_ms"] for r in runs["local"]),
                "ratio": round(median(ratios), 3), "ratio_min": round(ratios[0], 3), "ratio_max": round(ratios[-1], 3)}
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dist", type=Path, default=Path("dist"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--programs", default=",".join(PROGRAMS))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    dist = arguments.dist.resolve()
    ours = [str(dist / "lightos"), "run", "--report", "REPORT"]
    ways = {"native": [], "local": [*ours, "--dispatch", "local", "--"], "duty 50 %": [*ours, "--dispatch", "local", "--duty", "50", "--"],
            "auto": [*ours, "--"]}
    rows, bad = [], 0
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name in arguments.programs.split(","):
            runs = {way: [] for way in ways}
            for index in range(arguments.rounds):
                for way, prefix in ways.items():
                    # The duty and the choice need one run each; time is compared between native and local.
                    if index == 0 or way in ("native", "local"):
                        runs[way].append(run(name, prefix, scratch))
            if name == "ddp":
                runs["sidecar killed"] = [killed(dist, scratch)]
            row = judge(name, runs)
            rows.append(row)
            for way, verdict in row["verdicts"].items():
                bad += verdict.startswith(("FAILS", "DIFFERENT"))
                ratio = f"  x{row['ratio']:.2f}" if way == "local" and "ratio" in row else ""
                print(f"{name:12} {way:15} {verdict}{ratio}", flush=True)
                if verdict.startswith("FAILS"):
                    print(next(r.get("log", "") for r in runs[way] if not r["ok"]), flush=True)
        refused = run("pipeline", [*ours, "--dispatch", "sidecar", "--"], scratch)
    advice = not refused["ok"] and ADVICE in refused.get("log", "")
    bad += not advice
    print(f"pipeline     sidecar         {f'says to set {ADVICE}' if advice else 'GIVES NO ADVICE: ' + json.dumps(refused)[-2000:]}", flush=True)
    gpu = gpu_name()
    document = {"gpu": gpu, "recorded": now(), "rounds": arguments.rounds, "programs": rows, "sidecar_mode": refused}
    (arguments.out / f"{slug(gpu)}-multi-gpu.json").write_text(json.dumps(document, indent=1) + "\n")
    lines = [f"# Two GPUs: {gpu}", "", f"Command: `python3 tests/gpu/multi_gpu.py --dist dist --out docs/results --rounds {arguments.rounds}`.", "",
             "| program | mode | result | native ms/step | local ms/step | ratio (min–max) |", "| --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        for way, verdict in row["verdicts"].items():
            numbers = f"{row['native_ms']:.3f} | {row['local_ms']:.3f} | {row['ratio']:.2f} ({row['ratio_min']:.2f}–{row['ratio_max']:.2f})" if way == "local" and "ratio" in row else "– | – | –"
            lines.append(f"| {row['program']} | {way} | {verdict} | {numbers} |")
    (arguments.out / f"{slug(gpu)}-multi-gpu.md").write_text("\n".join(lines) + "\n")
    print(f"{sum(len(r['verdicts']) for r in rows) + 1 - bad} passed, {bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

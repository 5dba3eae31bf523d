"""Runs the cases of one suite in one process and appends one JSON line per case.

A case is a function that returns a step: a callable without arguments that does one unit of work and returns tensors or
scalars. The runner calls it a few times, hashes the bytes of every result of every call (so each step counts, not only the
last), then times further calls. A case whose package is missing is skipped with the reason ([harness.Skip]). Nothing here knows
whether it runs under LightOS, except that launch counts come from `lightos status` where a sidecar is named in the environment.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import subprocess
import sys
import time
import traceback

import harness

CHECKED_STEPS = 3
TIMED_SECONDS = 0.4
TIMED_STEPS = 200


def tenant() -> dict | None:
    """This process's row of the sidecar's status; nothing natively, and before the first CUDA call."""
    binary, socket = os.environ.get("LIGHTOS_BIN"), os.environ.get("LIGHTOS_SOCKET")
    if not binary or not socket:
        return None
    clean = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    done = subprocess.run([binary, "status", "--json", "--socket", socket], capture_output=True, text=True, env=clean)
    if done.returncode:
        return None
    tenants = json.loads(done.stdout)["tenants"]
    return next((t for t in tenants if t["pid"] == os.getpid()), None)


def flatten(value) -> list:
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in flatten(item)]
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in flatten(value[key])]
    return [value]


def digest(suite, value, into) -> None:
    for leaf in flatten(value):
        into.update(leaf if isinstance(leaf, bytes) else repr(leaf).encode() if isinstance(leaf, (int, float, str)) else suite.to_bytes(leaf))


def timed(suite, step) -> dict:
    """Milliseconds a further call takes: the median and the tenths beside it."""
    times, deadline = [], time.perf_counter() + TIMED_SECONDS
    while len(times) < 5 or (len(times) < TIMED_STEPS and time.perf_counter() < deadline):
        start = time.perf_counter()
        step()
        suite.synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    times.sort()
    return {"step_ms": round(times[len(times) // 2], 4), "step_ms_p10": round(times[len(times) // 10], 4),
            "step_ms_p90": round(times[len(times) * 9 // 10], 4), "steps": len(times)}


def run(suite, name: str) -> dict:
    case = suite.CASES[name]
    once = getattr(case, "once", False)
    harness.NOTES.clear()
    harness.PROCESSES.clear()
    before = tenant()
    started = time.perf_counter()
    step = case()
    hashed = hashlib.sha256()
    for _ in range(1 if once else CHECKED_STEPS):
        digest(suite, step(), hashed)
    suite.synchronize()
    first = time.perf_counter() - started
    after = tenant()
    result = {"case": name, "ok": True, "what": getattr(case, "what", ""), "sha256": hashed.hexdigest(), "first_s": round(first, 3)}
    if not once:
        result |= timed(suite, step)
    if getattr(case, "may_refuse", False):
        result["may_refuse"] = True
    if harness.NOTES:
        result["notes"] = dict(harness.NOTES)
    if harness.PROCESSES:
        result["processes"] = list(harness.PROCESSES)
    if after:
        before = before or dict.fromkeys(after, 0)
        for counter in ("launches", "graph_launches"):
            result[counter] = after[counter] - before[counter]
        if "mode" in after:
            result["mode"] = str(after["mode"]).lower()
    return result


def attempt(suite, name: str) -> dict:
    """The case's result, or why there is none."""
    try:
        return run(suite, name)
    except harness.Skip as reason:
        return {"case": name, "ok": False, "skipped": str(reason)}
    except Exception as error:
        traceback.print_exc()
        return {"case": name, "ok": False, "error": f"{type(error).__name__}: {error}"[:600]}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("suite", help="runs the cases of cases_SUITE.py")
    parser.add_argument("--cases", default="", help="comma-separated; all by default")
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    missing = None
    try:
        suite = importlib.import_module(f"cases_{arguments.suite}")
    except ModuleNotFoundError as error:
        if not arguments.cases:
            raise
        missing = f"{error.name} is not installed"
    names = [n for n in arguments.cases.split(",") if n] or list(suite.CASES)
    for name in names:
        with open(arguments.out, "a") as file:
            print(json.dumps({"case": name, "started": True}), file=file)
        result = {"case": name, "ok": False, "skipped": missing} if missing else attempt(suite, name)
        with open(arguments.out, "a") as file:
            print(json.dumps(result), file=file)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Runs numba-cuda's own test-suite against the driver that LD_LIBRARY_PATH names, and compares with `expected.json`.

    python run.py [--only SUBSTRING] [--jobs N] [--timeout SECONDS] [--write FILE]

Each module runs in a process of its own with a time limit per module; a crash or a hang is one case's failure and the cases
behind it still run. The exit status is 0 where no case fails that `expected.json` does not list as failing.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import pkgutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).parent
# Not run: `cudasim` tests the suite's own simulator, `benchmarks` measures.
FOLDERS = ("cudadrv", "cudapy", "nocuda", "core", "nrt", "doc_examples")
# A module whose cases keep crashing is given up after so many processes.
ATTEMPTS = 12


def modules(only):
    """Names of the modules, the longest sources first: a long one that begins last would leave the other jobs idle."""
    import importlib

    sizes = {}
    for folder in FOLDERS:
        package = importlib.import_module(f"numba.cuda.tests.{folder}")
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            name = found.name.rsplit(".", 1)[1]
            if name.startswith("test_") and only in found.name:
                sizes[found.name] = pathlib.Path(found.module_finder.path, f"{name}.py").stat().st_size
    return sorted(sizes, key=lambda name: (-sizes[name], name))


def run_module(name, timeout):
    """Outcomes by case: {id: (outcome, reason)}."""
    outcomes = {}
    for _ in range(ATTEMPTS):
        with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as results:
            command = [sys.executable, str(HERE / "module_worker.py"), name, results.name, *outcomes]
            try:
                ended = subprocess.run(command, timeout=timeout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                why, output = f"the process ended with {ended.returncode}", ended.stdout
            except subprocess.TimeoutExpired as error:
                why, output = f"no end within {timeout} s", error.stdout or b""
            running = None
            for line in results.read().splitlines():
                said = json.loads(line)
                if said["outcome"] == "started":
                    running = said["test"]
                    continue
                # The first failure of a case stays: later lines are its other subtests.
                if outcomes.get(said["test"], ("",))[0] != "failed":
                    outcomes[said["test"]] = (said["outcome"], said["reason"])
                running = None if running == said["test"] else running
            if running is None or running in outcomes:
                if not outcomes and "ended with 0" not in why:
                    outcomes[name] = ("failed", why + ": " + output.decode(errors="replace")[-600:])
                break
            outcomes[running] = ("failed", why + ": " + output.decode(errors="replace")[-600:])
    return outcomes


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=300)
    parser.add_argument("--write", type=pathlib.Path)
    options = parser.parse_args()
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    started = time.monotonic()
    outcomes = {}
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(run_module, name, options.timeout): name for name in modules(options.only)}
        for ended in concurrent.futures.as_completed(running):
            name, found = running[ended], ended.result()
            outcomes.update(found)
            bad = sum(outcome == "failed" for outcome, _ in found.values())
            print(f"{name}: {len(found)} cases, {bad} failed", flush=True)
            if options.write:
                options.write.write_text(json.dumps(outcomes, indent=1, sort_keys=True) + "\n")
    expected = json.loads((HERE / "expected.json").read_text()) if (HERE / "expected.json").exists() else {}
    failed = {case for case, (outcome, _) in outcomes.items() if outcome == "failed"}
    for case in sorted(failed - set(expected)):
        print(f"FAILED {case}\n{outcomes[case][1]}")
    for case in sorted(set(expected) & set(outcomes) - failed):
        print(f"note: {case} is listed as failing and did not fail")
    count = lambda wanted: sum(outcome == wanted for outcome, _ in outcomes.values())
    unexpected = failed - set(expected)
    print(f"{count('passed')} passed, {len(unexpected)} failed, {len(failed) - len(unexpected)} known to fail, "
          f"{count('skipped')} skipped in {time.monotonic() - started:.0f} s")
    return 1 if unexpected or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main())

"""The client suite's cases on real hardware: natively and under LightOS, compared; the native results are kept.

    python3 tests/gpu/clients.py --dist dist --out docs/results [--native-only | --mode local]

<gpu>-clients.json holds every case's result, so that the software GPU can be held against hardware as well. Another mode than `sidecar`
adds its name to the file's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from frameworks import MODES, gpu_name, now, slug

# One case may take; some start a dozen processes.
LIMIT_S = 60
CLIENTS = Path(__file__).resolve().parent.parent / "clients"
sys.path.append(str(CLIENTS))

from native_only import NATIVE_ONLY  # noqa: E402

# Take all device memory, or look at how much is free: never beside other cases.
ALONE = {"out_of_memory", "destroyed_context_gives_its_memory_back", "reset_primary_context", "arrays_end_with_their_context", "graph_memory_comes_back"}


def names() -> list[str]:
    """Of every case; read from the text, because this process need not have the bindings."""
    lines = [line for area in sorted((CLIENTS / "cases").glob("*.py")) for line in area.read_text().splitlines()]
    return [b[4:].split("(")[0] for a, b in zip(lines, lines[1:]) if a == "@case"]


def run(prefix: list[str], name: str):
    command = [*prefix, sys.executable, "cases.py", name]
    try:
        done = subprocess.run(command, cwd=CLIENTS, capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return {"error": f"no end within {LIMIT_S} s"}
    if done.returncode:
        return {"error": f"exit status {done.returncode}", "stderr": done.stderr[-1500:]}
    result = json.loads(done.stdout)
    return result if not done.stderr else {"error": "stderr is not clean", "stderr": done.stderr[-1500:]}


def run_all(prefix: list[str], keep, without=frozenset()) -> dict:
    """`keep` is given the results so far, now and then: a run that is cut short leaves what it had."""
    together = [n for n in names() if n not in ALONE and n not in without]
    results = {}

    def one(name: str):
        results[name] = run(prefix, name)
        if len(results) % 20 == 0:
            keep(dict(results))

    with ThreadPoolExecutor(max(6, (os.cpu_count() or 8) - 4)) as pool:
        list(pool.map(one, together))
    for name in sorted(ALONE & set(names())):
        one(name)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dist", type=Path, default=Path("dist"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--native-only", action="store_true")
    parser.add_argument("--mode", choices=MODES, default="sidecar", help="where the calls of the runs under LightOS go")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    gpu, mode = gpu_name(), arguments.mode
    name = f"{slug(gpu)}-clients" + f"-{mode}" * (mode != "sidecar")
    document = {"gpu": gpu, "mode": mode, "recorded": now()}

    def keep(side: str, results: dict):
        document[side] = results
        (arguments.out / f"{name}.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")

    keep("native", run_all([], lambda results: keep("native", results)))
    if not arguments.native_only:
        command = [str(arguments.dist.resolve() / "lightos"), "run", "--dispatch", mode, "--"]
        # In local mode the process's own driver does what the executor does not carry.
        without = frozenset() if mode == "local" else NATIVE_ONLY.keys()
        keep("lightos", run_all(command, lambda results: keep("lightos", results), without))
    failed = 0
    for name in names():
        native, ours = document["native"][name], document.get("lightos", {}).get(name, document["native"][name])
        same = native == ours and "error" not in native
        failed += not same
        print(f"{name:28} {'same' if same else 'DIFFERENT'}")
        if not same:
            print(f"    native : {json.dumps(native)[:1500]}\n    lightos: {json.dumps(ours)[:1500]}")
    print(f"{len(names()) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

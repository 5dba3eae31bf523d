"""The client suite's cases on real hardware: natively and under LightOS, compared; the native results are kept.

    python3 tests/gpu/clients.py --dist dist --out docs/results [--native-only | --mode local]

<gpu>-clients.json holds every case's result, so that the software GPU can be held against hardware as well. Another mode than `sidecar`
adds its name to the file's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from frameworks import MODES, gpu_name, now, slug

CLIENTS = Path(__file__).resolve().parent.parent / "clients"
sys.path.append(str(CLIENTS))

from native_only import NATIVE_ONLY  # noqa: E402

# Takes all device memory: never beside other cases.
ALONE = {"out_of_memory"}


def names() -> list[str]:
    """Of every case; read from the text, because this process need not have the bindings."""
    lines = [line for area in sorted((CLIENTS / "cases").glob("*.py")) for line in area.read_text().splitlines()]
    return [b[4:].split("(")[0] for a, b in zip(lines, lines[1:]) if a == "@case"]


def run(prefix: list[str], name: str):
    command = [*prefix, sys.executable, "cases.py", name]
    try:
        done = subprocess.run(command, cwd=CLIENTS, capture_output=True, text=True, timeout=90)
    except subprocess.TimeoutExpired:
        return {"error": "no end within 90 s"}
    if done.returncode:
        return {"error": f"exit status {done.returncode}", "stderr": done.stderr[-1500:]}
    result = json.loads(done.stdout)
    return result if not done.stderr else {"error": "stderr is not clean", "stderr": done.stderr[-1500:]}


def run_all(prefix: list[str], without=frozenset()) -> dict:
    together = [n for n in names() if n not in ALONE and n not in without]
    with ThreadPoolExecutor(6) as pool:
        results = dict(zip(together, pool.map(lambda n: run(prefix, n), together)))
    return results | {n: run(prefix, n) for n in ALONE}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dist", type=Path, default=Path("dist"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--native-only", action="store_true")
    parser.add_argument("--mode", choices=MODES, default="sidecar", help="LIGHTOS_DISPATCH of the runs under LightOS")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    gpu, mode = gpu_name(), arguments.mode
    document = {"gpu": gpu, "mode": mode, "recorded": now(), "native": run_all([])}
    if not arguments.native_only:
        # In local mode the process's own driver does what the executor does not carry.
        without = frozenset() if mode == "local" else NATIVE_ONLY.keys()
        document["lightos"] = run_all([str(arguments.dist.resolve() / "lightos"), "run", "--", "env", f"LIGHTOS_DISPATCH={mode}"], without)
    name = f"{slug(gpu)}-clients" + f"-{mode}" * (mode != "sidecar")
    (arguments.out / f"{name}.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
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

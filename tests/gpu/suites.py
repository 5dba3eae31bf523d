"""numba-cuda's own tests on real hardware, natively and under LightOS: what differs, test by test.

    python3 tests/gpu/suites.py --dist dist --out docs/results [--mode local] [--jobs 8] [--only SUBSTRING]

Writes <out>/<gpu>-numba.json: both outcomes of every test, with the message of each that did not pass. A test counts as different where
it passes natively and does not under LightOS; one that fails natively is the machine's, and is listed apart. Modules with a difference run
once more without others beside them: what differs then too is a difference; what differed only once, under load, is listed as such.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from frameworks import MODES, gpu_name, now, slug

RETRIED = 12  # modules at most
RUNNER = Path(__file__).resolve().parent.parent / "suites/run.py"


def run(prefix: list[str], options: list[str], scratch: Path, limit_s: float) -> tuple[dict[str, list[str]], bool]:
    """Outcomes by test, (outcome, message), and whether the run came to its end; what there is where time runs out."""
    out = scratch / f"{time.monotonic_ns()}.json"
    command = [*prefix, sys.executable, str(RUNNER), "--write", str(out), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    ended = True
    try:
        told, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        ended = False
        os.killpg(process.pid, signal.SIGKILL)
        told, _ = process.communicate()
        print(f"   no end within {limit_s:.0f} s", flush=True)
    if not out.exists():
        print(f"   nothing ran:\n{told[-3000:]}", flush=True)
    return json.loads(out.read_text()) if out.exists() else {}, ended


def message(outcome: list[str]) -> str:
    """The last line of a traceback says what happened."""
    lines = outcome[1].strip().splitlines()
    return lines[-1][:400] if lines else ""


def ended(outcomes: dict[str, list[str]], test: str) -> list[str]:
    return outcomes.get(test, ["did not run", ""])


def different(native: dict, ours: dict, cut: bool) -> list[str]:
    """Tests that do natively what they do not do under LightOS. A skip for another reason is none; what only one side has is none where time ran
    out (`cut`), and else a crash took it along."""
    tests = native.keys() & ours.keys() if cut else native.keys() | ours.keys()
    return sorted(t for t in tests if ended(native, t)[0] != ended(ours, t)[0] and ended(native, t)[0] != "failed")


def module_of(test: str) -> str:
    """numba.cuda.tests.FOLDER.MODULE; a module that does not load is a test by that name."""
    return ".".join(test.split(".")[:5])


def text(document: dict, outcomes: dict[str, dict]) -> str:
    """JSON with a line for each test: by way, the outcome and the message."""
    tests = sorted(set().union(*outcomes.values()))
    rows = ({way: [ended(known, test)[0], message(ended(known, test))] for way, known in outcomes.items()} for test in tests)
    lines = ",\n".join(f"  {json.dumps(test)}: {json.dumps(row)}" for test, row in zip(tests, rows))
    return json.dumps(document, indent=1)[:-2] + ',\n "tests": {\n' + lines + "\n }\n}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dist", type=Path, default=Path("dist"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--mode", choices=MODES, default="sidecar", help="where the calls of the run under LightOS go")
    parser.add_argument("--jobs", type=int, default=8)
    parser.add_argument("--only", default="", help="modules whose name contains this")
    parser.add_argument("--limit", type=float, default=280, help="seconds for each of the two runs")
    parser.add_argument("--softgpu", action="store_true")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    gpu = "software GPU" if arguments.softgpu else gpu_name()
    lightos = str(arguments.dist.resolve() / "lightos")
    soft = ["--softgpu"] * arguments.softgpu
    ways = {"native": [lightos, "run", *soft, "--dispatch", "off", "--"] if soft else [],
            "lightos": [lightos, "run", *soft, "--dispatch", arguments.mode, "--"]}
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    options = ["--jobs", str(arguments.jobs), "--timeout", "100", "--only", arguments.only]
    name = f"{slug(gpu)}-numba" + f"-{arguments.mode}" * (arguments.mode != "sidecar") + "-part" * bool(arguments.only)
    document = {"gpu": gpu, "mode": arguments.mode, "recorded": now(), "seconds": {}, "cut": False}
    outcomes = {}

    def save(first: list[str]) -> list[str]:
        """Writes what is known, and returns what differs now."""
        document["differences"] = different(outcomes["native"], outcomes["lightos"], document["cut"])
        document["differed_once"] = sorted(set(first) - set(document["differences"]))
        (arguments.out / f"{name}.json").write_text(text(document, outcomes))
        return document["differences"]

    with tempfile.TemporaryDirectory() as scratch:
        for way, prefix in ways.items():
            started = time.monotonic()
            outcomes[way], came_to_its_end = run(prefix, options, Path(scratch), arguments.limit)
            document["cut"] |= not came_to_its_end
            document["seconds"][way] = round(time.monotonic() - started, 1)
            print(f"{way}: {counts(outcomes[way])} in {document['seconds'][way]} s", flush=True)
        first = save([])
        for module in sorted({module_of(test) for test in first})[:RETRIED]:
            for way, prefix in ways.items():
                outcomes[way] |= run(prefix, ["--jobs", "1", "--timeout", "60", "--only", module], Path(scratch), 90)[0]
        differences = save(first)
    native, ours = outcomes["native"], outcomes["lightos"]
    for test in sorted(t for t in native if native[t][0] == "failed"):
        print(f"fails natively: {test}\n    {message(native[test])}")
    for test in document["differed_once"]:
        print(f"differed once: {test}")
    for test in differences:
        print(f"DIFFERENT {test}: {ended(native, test)[0]} natively, {ended(ours, test)[0]} under LightOS\n    {message(ended(ours, test))}")
    print(f"{sum(outcome == 'passed' for outcome, _ in ours.values())} passed, {len(differences)} failed")
    return 1 if differences or not ours else 0


def counts(outcomes: dict[str, list[str]]) -> str:
    count = lambda wanted: sum(outcome == wanted for outcome, _ in outcomes.values())
    return f"{count('passed')} passed, {count('failed')} failed, {count('skipped')} skipped"


if __name__ == "__main__":
    sys.exit(main())

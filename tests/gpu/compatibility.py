"""Writes the tables of docs/COMPATIBILITY.md, program x mode x result, from the runs recorded under docs/results.

    python3 tests/gpu/compatibility.py [--check]

The text between `<!-- begin: NAME -->` and `<!-- end: NAME -->` is the table NAME; the rest of the document is written by hand. Where a
program was recorded more than once on a device and in a mode, the newest recording counts; what is native is what any recording has. `--check` writes nothing and fails where
the document is not what the recordings say.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from pathlib import Path

from frameworks import MODES, SUITES, cases_of

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/COMPATIBILITY.md"
RESULTS = ROOT / "docs/results"
# What a mode's column is where nothing was recorded.
NOT_RUN = "–"


def recordings(pattern: str) -> list[tuple[str, dict]]:
    """Files and what they hold, the oldest first; an undated recording of a part is a later one of what the whole holds too."""
    found = [(path.name, json.loads(path.read_text())) for path in sorted(RESULTS.glob(pattern)) if not path.stem.endswith("-part")]
    return sorted(found, key=lambda item: (item[1].get("recorded", ""), -len(item[1].get("suites", {})), item[0]))


def cell(text: str) -> str:
    """As the cell of a table: one line, no bars, not too long."""
    line = text.splitlines()[0].replace("|", "/")
    return line if len(line) <= 140 else line[:139] + "…"


def row(*cells) -> str:
    return "| " + " | ".join(str(c) for c in cells) + " |"


def head(*titles: str) -> list[str]:
    return [row(*titles), row(*["---"] * len(titles))]


def link(name: str) -> str:
    return f"[{name}](results/{name})"


def modes_in(known) -> list[str]:
    return [mode for mode in MODES if any(mode == found for found in known)]


def device(gpu: str) -> str:
    name, _, driver = gpu.partition(", ")
    return f"{name}, driver {driver}" if driver else name


def programs() -> str:
    """The suites of frameworks.py."""
    verdicts: dict[str, dict[tuple[str, str, str], str]] = {}  # by device, then suite, case, mode
    names, sources = {}, {}
    natively: dict[tuple[str, str, str], set[str]] = {}  # what native runs have given in any recording
    found = recordings("*-frameworks*.json")
    for _, document in found:
        for suite, rows in document["suites"].items():
            for case in rows:
                natively.setdefault((device(document["gpu"]), suite, case["case"]), set()).update(digests(case["native"]))
    for file, document in found:
        gpu, mode = device(document["gpu"]), document.get("mode", "sidecar")
        for suite, rows in document["suites"].items():
            for case in rows:
                key = suite, case["case"], mode
                verdicts.setdefault(gpu, {})[key] = verdict(case, natively[gpu, suite, case["case"]])
                names[suite, case["case"]] = case.get("what", "")
                sources[gpu, key] = file
    lines = []
    for gpu, known in verdicts.items():
        modes = modes_in({mode for _, _, mode in known})
        table, counts = [], []
        for suite, (cases_file, _) in SUITES.items():
            cases = [case for case in cases_of(cases_file) if any((suite, case, mode) in known for mode in modes)]
            if not cases:
                continue
            counts.append(row(f"`{suite}`", len(cases), *(tally([known.get((suite, case, mode)) for case in cases]) for mode in modes)))
            for case in cases:
                what = names[suite, case]
                program = f"`{case}`" + f": {what}" * bool(what)
                table.append(row(f"`{suite}`", cell(program), *(cell(known.get((suite, case, mode), NOT_RUN)) for mode in modes)))
        if table:
            used = sorted({file for (where, _), file in sources.items() if where == gpu})
            lines += [f"### {gpu}", "", f"From {', '.join(link(file) for file in used)}.", "", *head("suite", "programs", *modes), *counts, ""]
            lines += [*head("suite", "program", *modes), *table, ""]
    return "\n".join(lines).strip()


def digests(runs: list[dict]) -> set[str]:
    return {run["sha256"] for run in runs if "sha256" in run}


def verdict(case: dict, natively: set[str]) -> str:
    """Of one recording, in which the native runs may have agreed by chance: others may have given what the ones under LightOS gave."""
    by_chance = case["verdict"] == "DIFFERENT" and len(natively) > 1 and digests(case["lightos"]) <= natively
    return "runs (native differs from itself)" if by_chance else case["verdict"]


def tally(verdicts: list[str | None]) -> str:
    """How often each kind of verdict, the good ones first."""
    kinds = Counter("not run" if verdict is None else re.split(r"[:(]", verdict)[0].strip() for verdict in verdicts)
    order = ["bit-identical", "runs", "skipped", "native fails", "refused", "DIFFERENT", "FAILS", "not run"]
    return ", ".join(f"{kinds[kind]} {kind}" for kind in order if kinds[kind]) or NOT_RUN


def suites() -> str:
    """Tests of other projects, and our own on NVIDIA's bindings: what passes natively passes under LightOS."""
    lines = head("tests", "device", "mode", "natively passed", "the same under LightOS", "different", "not run there", "recording")
    listed = []
    newest = {}
    for pattern, read in (("*-numba*.json", own_tests), ("*-clients*.json", client_cases)):
        for file, document in recordings(pattern):
            if "suites" in document:  # the programs of `numba-programs`
                continue
            newest[pattern, device(document["gpu"]), document.get("mode", "sidecar")] = (file, *read(document))
    for (_, gpu, mode), (file, name, passed, different, missing) in newest.items():
        lines.append(row(name, gpu, mode, passed, passed - len(different) - missing, len(different), missing, link(file)))
        listed += [f"- {name}, {gpu}, {mode}: `{test}`: {cell(why)}" for test, why in different.items()]
    if listed:
        lines += ["", "Different:", "", *listed]
    return "\n".join(lines)


# By suite: its name, how many pass natively, why each that ran under LightOS differs there, and how many were not reached in the time given.
Suite = tuple[str, int, dict[str, str], int]


def own_tests(document: dict) -> Suite:
    passed = {test: outcomes["lightos"] for test, outcomes in document["tests"].items() if outcomes["native"][0] == "passed"}
    different = {test: ours[1] or ours[0] for test, ours in passed.items() if ours[0] not in ("passed", "did not run")}
    return "numba-cuda's own", len(passed), different, sum(ours[0] == "did not run" for ours in passed.values())


def client_cases(document: dict) -> Suite:
    ours = document.get("lightos", {})
    passed = {name: result for name, result in document["native"].items() if "error" not in result}
    different = {name: ours[name].get("error", "another result") for name, result in passed.items() if name in ours and ours[name] != result}
    return "`tests/clients` on cuda-bindings", len(passed), different, len(passed.keys() - ours.keys())


def multi_gpu() -> str:
    """Programs on two GPUs, by way of running them."""
    lines = []
    for file, document in recordings("*-multi-gpu.json"):
        ways = list(dict.fromkeys(way for program in document["programs"] for way in program["verdicts"]))
        lines += [f"{device(document['gpu'])}, from {link(file)}.", "", *head("program", *ways)]
        lines += [row(f"`{program['program']}`", *(cell(program["verdicts"].get(way, NOT_RUN)) for way in ways)) for program in document["programs"]]
        lines.append("")
    return "\n".join(lines).strip()


def soak() -> str:
    lines = head("device", "minutes", "programs that came and went", "killed", "series watched", "grow", "wrong", "recording")
    for file, document in recordings("*-soak.json"):
        lines.append(row(device(document["gpu"]), f"{document['minutes']:g}", document.get("ended", 0), document.get("killed", 0), len(document["verdicts"]),
                         cell(", ".join(document["grows"]) or "none"), cell(document["wrong"] or "nothing"), link(file)))
    return "\n".join(lines)


TABLES = {"programs": programs, "suites": suites, "multi-gpu": multi_gpu, "soak": soak}


def filled(text: str) -> str:
    for name, table in TABLES.items():
        marked = re.compile(rf"(<!-- begin: {name} -->\n).*?(<!-- end: {name} -->)", re.DOTALL)
        if not marked.search(text):
            raise SystemExit(f"{DOCUMENT.name} has no place for the table {name}")
        written = table()
        text = marked.sub(lambda found: f"{found[1]}\n{written}\n\n{found[2]}", text)
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    present = DOCUMENT.read_text()
    wanted = filled(present)
    if not arguments.check:
        DOCUMENT.write_text(wanted)
    elif present != wanted:
        print(f"{DOCUMENT.name} is not what docs/results says: run tests/gpu/compatibility.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

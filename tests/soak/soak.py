"""A soak: a daemon under a mixed load for as long as is asked, and whether anything grows.

    python3 tests/soak/soak.py --minutes 60 [--hardware] [--dist dist] [--out docs/results]

Four programs run all the time, one for each kind of work (`worker.py`). Beside them programs come, work and go, and others are killed at
any point. Every ten seconds the load pauses: the four hold nothing on the device, the others have ended. Then resident memory, open files
and threads of the daemon, of each executor and each program are read, and the device memory in use by `lightos status` and by
cuMemGetInfo. After warm-up, growth is (`growth.py`):

    own resident memory   more than 1 MiB an hour for certain (three standard errors of a robust slope), and more than 1 MiB in all
    files, threads        a tenth of the last third of the readings above all of the first third
    device memory         likewise, to the byte; allocators keep some of what is freed
    tenants, executors    any that is not of the four programs, 10 s after the others have ended

Exit status 1 on growth, on a wrong result, and where a program ends that should not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

import growth
from observe import Daemon, Program, reading

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "gpu"))

from frameworks import gpu_name, slug  # noqa: E402

KINDS = ("memory", "queues", "graphs", "modules")
SAMPLE_S = 10
SETTLE_S = 10
END_S = 60


class Wrong(Exception):
    """Something that must not happen has happened."""


class Soak:
    def __init__(self, daemon: Daemon, beside: int):
        self.daemon, self.beside, self.draw = daemon, beside, random.Random(1)
        self.started = time.monotonic()
        self.programs = {kind: daemon.start(kind) for kind in KINDS}
        self.visitors: list[tuple[Program, float | None]] = []
        self.samples, self.ended, self.killed = [], 0, 0
        for program in self.programs.values():
            program.answer(END_S)

    def visit(self) -> None:
        """Starts what is missing of the programs that come and go; half of them are killed, some before CUDA has started."""
        while len(self.visitors) < self.beside:
            doomed = self.draw.random() < 0.5
            rounds = 1_000_000 if doomed else self.draw.randrange(1, 6)
            dies = time.monotonic() + self.draw.uniform(0.05, 3.0) if doomed else None
            self.visitors.append((self.daemon.start("mixed", str(rounds)), dies))
        self.reap()

    def reap(self) -> None:
        left = []
        for program, dies in self.visitors:
            code = program.process.poll()
            if code is None and dies is not None and time.monotonic() > dies:
                program.process.kill()
                code = program.process.wait()
            if code is None:
                left.append((program, dies))
                continue
            if code != (-signal.SIGKILL if dies is not None else 0):
                raise Wrong(f"a program that came and went ended with {code}: {program.said()}")
            self.killed, self.ended = self.killed + (dies is not None), self.ended + (dies is None)
            program.close()
        self.visitors = left

    def sample(self) -> None:
        """Pauses the load and reads."""
        deadline = time.monotonic() + END_S
        while self.visitors:
            self.reap()
            if time.monotonic() > deadline:
                raise Wrong(f"a program did not end within {END_S} s")
            time.sleep(0.02)
        self.settle()  # first: an executor that is ending still has device memory
        for program in self.programs.values():
            program.tell("sample")
        answers = {kind: program.answer(END_S) for kind, program in self.programs.items()}
        status = self.daemon.status()
        processes = {"daemon": reading(self.daemon.pid)}
        executors = self.daemon.executors()
        for kind, program in self.programs.items():
            processes[f"program {kind}"] = reading(program.process.pid)
            processes[f"executor {kind}"] = reading(executors[program.process.pid])
        self.samples.append({
            "seconds": round(time.monotonic() - self.started, 2),
            "processes": processes,
            "device": {"used_bytes (status)": sum(r["memory_used_bytes"] or 0 for r in status["readings"]),
                       "tenants_bytes (status)": sum(t["memory"]["current_bytes"] for t in status["tenants"]),
                       "used_bytes (cuMemGetInfo)": answers["memory"]["total_bytes"] - answers["memory"]["free_bytes"]},
            "rounds": {kind: answer["rounds"] for kind, answer in answers.items()},
        })
        for program in self.programs.values():
            program.tell("go")

    def settle(self) -> None:
        """Waits until the daemon serves the four programs alone."""
        wanted, deadline = {p.process.pid for p in self.programs.values()}, time.monotonic() + SETTLE_S
        while True:
            status = self.daemon.status()
            tenants, executors = {t["pid"] for t in status["tenants"]}, self.daemon.executors().keys()
            if tenants == executors == wanted:
                return
            if time.monotonic() > deadline:
                raise Wrong(f"left after their programs: tenants {tenants - wanted}, executors of {executors - wanted}; gone: {wanted - tenants}, {wanted - executors}")
            time.sleep(0.05)

    def check(self) -> None:
        for kind, program in self.programs.items():
            if (code := program.process.poll()) is not None:
                raise Wrong(f"the program {kind} ended with {code}: {program.said()}")
        if (code := self.daemon.process.poll()) is not None:
            raise Wrong(f"the daemon ended with {code}: {self.daemon.said()}")

    def run(self, seconds: float) -> None:
        due = self.started + SAMPLE_S
        while time.monotonic() < self.started + seconds:
            self.check()
            self.visit()
            if time.monotonic() >= due:
                self.sample()
                due = max(due + SAMPLE_S, time.monotonic() + SAMPLE_S / 2)
            time.sleep(0.02)
        self.sample()

    def stop(self) -> None:
        """Ends the programs in order: each says by its exit status that all its results were right."""
        for program, _ in self.visitors:
            program.process.kill()
            program.process.wait()
        for kind, program in self.programs.items():
            program.tell("stop")
            try:
                code = program.process.wait(END_S)
            except subprocess.TimeoutExpired:
                raise Wrong(f"the program {kind} did not end within {END_S} s") from None
            if code:
                raise Wrong(f"the program {kind} ended with {code}: {program.said()}")

    def kill(self) -> None:
        for program in [*self.programs.values(), *(program for program, _ in self.visitors)]:
            program.process.kill()
            program.process.wait()


def judge(samples: list[dict], warm_up_s: float) -> dict[str, dict]:
    """A verdict for each series, by its name."""
    kept = [s for s in samples if s["seconds"] >= warm_up_s]
    if len(kept) < 6:
        raise Wrong(f"{len(kept)} samples after warm-up are too few for a verdict")
    times = [s["seconds"] for s in kept]
    verdicts = {}
    for process in kept[0]["processes"]:
        for figure in kept[0]["processes"][process]:
            rule = growth.resident if figure.endswith("_bytes") else growth.bounded
            verdicts[f"{process} {figure}"] = rule(times, [s["processes"][process][figure] for s in kept])
    for figure in kept[0]["device"]:
        verdicts[f"device {figure}"] = growth.bounded(times, [s["device"][figure] for s in kept])
    return {name: asdict(verdict) for name, verdict in verdicts.items()}


def table(verdicts: dict[str, dict]) -> str:
    lines = [f"{'':44} {'first':>12} {'last':>12} {'per hour':>12} {'+-':>10}"]
    for name, v in verdicts.items():
        unit = 1024 if "bytes" in name else 1
        numbers = "".join(f" {v[key] / unit:{width}.1f}" for key, width in (("first", 12), ("last", 12), ("per_hour", 12), ("error_per_hour", 10)))
        lines.append(f"{name.replace('bytes', 'KiB'):44}{numbers}{'  GROWS' if v['grows'] else ''}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--hardware", action="store_true", help="the machine's own driver instead of the software GPU")
    parser.add_argument("--dist", type=Path, default=Path("dist"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--beside", type=int, default=2, help="programs that come and go, at a time")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    seconds = arguments.minutes * 60
    warm_up = min(max(30.0, 0.15 * seconds), 600.0)
    gpu = gpu_name() if arguments.hardware else "software GPU"
    document = {"gpu": gpu, "mode": "sidecar", "recorded": datetime.now(timezone.utc).isoformat(timespec="seconds"), "minutes": arguments.minutes,
                "warm_up_s": warm_up, "wrong": None, "verdicts": {}}
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        daemon = Daemon(arguments.dist.resolve(), Path(folder), arguments.hardware)
        soak = None
        try:
            soak = Soak(daemon, arguments.beside)
            soak.run(seconds)
            soak.stop()
            document["verdicts"] = judge(soak.samples, warm_up)
        except Exception as error:  # whatever it was, the hour has not passed
            document["wrong"] = str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}"
        finally:
            if soak:
                soak.kill()
            daemon.stop()
    if soak:
        document |= {"ended": soak.ended, "killed": soak.killed, "samples": soak.samples}
    grows = [name for name, verdict in document["verdicts"].items() if verdict["grows"]]
    document["grows"] = grows
    (arguments.out / f"{slug(gpu)}-soak.json").write_text(json.dumps(document) + "\n")
    print(table(document["verdicts"]))
    if soak and soak.samples:
        print(f"\n{soak.samples[-1]['seconds']:.0f} s, rounds {soak.samples[-1]['rounds']}, {soak.ended} programs came and went, {soak.killed} were killed")
    if document["wrong"]:
        print(f"WRONG: {document['wrong']}")
    bad = len(grows) + bool(document["wrong"])
    print(f"{len(document['verdicts']) - len(grows)} passed, {bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.exit(main())

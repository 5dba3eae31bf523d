"""The soak's processes: the daemon, the programs that it serves, and what /proc says of each."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

WORKER = Path(__file__).resolve().parent / "worker.py"
START_S = 20


def reading(pid: int) -> dict[str, int]:
    """Resident memory of its own, open files and threads of a process. Shared memory is not counted: a ring's pages become resident one by one as
    it goes round for the first time, and memory of the device is watched as such."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {"resident_bytes": int(fields["RssAnon"].split()[0]) * 1024, "files": len(os.listdir(f"/proc/{pid}/fd")), "threads": int(fields["Threads"])}


class Child:
    """A process whose stderr is kept in a file."""

    def __init__(self, command: list[str], env: dict[str, str], errors: Path):
        self.errors = errors
        with open(errors, "wb") as sink:
            self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink)
        self.buffer = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def said(self) -> str:
        return self.errors.read_text(errors="replace")[-1500:]


class Program(Child):
    def tell(self, word: str) -> None:
        try:
            self.process.stdin.write(f"{word}\n".encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, which the next look at it finds

    def answer(self, seconds: float) -> dict:
        """The next line of JSON that it prints."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self.buffer:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            part = os.read(self.process.stdout.fileno(), 4096) if ready else b""
            if not part:
                raise RuntimeError(f"no answer from {self.pid}: {self.said()}")
            self.buffer += part
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def close(self) -> None:
        """Its stdin ends, which ends a program that obeys; what it said is dropped."""
        self.process.stdin.close()
        self.process.stdout.close()
        self.errors.unlink(missing_ok=True)


class Daemon(Child):
    def __init__(self, dist: Path, folder: Path, hardware: bool):
        self.dist, self.folder, self.count = dist, folder, 0
        self.socket = folder / "lightos.sock"
        # Reports of ended programs are kept up to a number, which shall be reached in warm-up.
        config = folder / "sidecar.yaml"
        config.write_text("finished_reports: 16\n")
        self.clean = {k: v for k, v in os.environ.items() if not k.startswith("LIGHTOS_") and k != "LD_PRELOAD"}
        command = [str(dist / "lightos"), "sidecar", "--socket", str(self.socket), "--config", str(config), "--log", "error"]
        super().__init__(command + ["--softgpu"] * (not hardware), self.clean, folder / "daemon.log")
        self.served = self.clean | {"LD_PRELOAD": str(dist / "liblightos_intercept.so"), "LIGHTOS_SOCKET": str(self.socket),
                                    "LIGHTOS_REQUIRE": "1", "LIGHTOS_DISPATCH": "sidecar"}
        if not hardware:
            path = self.clean.get("LD_LIBRARY_PATH")
            self.served["LD_LIBRARY_PATH"] = str(dist / "softgpu") + (f":{path}" if path else "")
        deadline = time.monotonic() + START_S
        while not self.socket.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the daemon does not start: {self.said()}")
            time.sleep(0.02)

    def start(self, *arguments: str) -> Program:
        """A program under LightOS."""
        self.count += 1
        return Program([sys.executable, str(WORKER), *arguments], self.served, self.folder / f"{self.count}.log")

    def status(self) -> dict:
        command = [str(self.dist / "lightos"), "status", "--json", "--socket", str(self.socket)]
        return json.loads(subprocess.run(command, env=self.clean, capture_output=True, text=True, check=True, timeout=START_S).stdout)

    def executors(self) -> dict[int, int]:
        """The executors' process ids by their programs'."""
        found = {}
        children = Path(f"/proc/{self.pid}/task").glob("*/children")
        for pid in [int(word) for file in children for word in read(file).split()]:
            words = read(Path(f"/proc/{pid}/cmdline")).split("\0")
            if "--pid" in words:
                found[int(words[words.index("--pid") + 1])] = pid
        return found

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(START_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def read(file: Path) -> str:
    """A file of /proc; nothing where its process has ended."""
    try:
        return file.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""

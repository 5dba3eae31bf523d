"""What the files of cases share: the register of a file's cases, packages that may be missing, and programs of their own.

A file of cases, `cases_<suite>.py`, offers `CASES` (by name, each a function that returns a step), `to_bytes` (of what a step
returns) and `synchronize`. A step returns what must be the same natively and under LightOS; what may differ, a count of profiler
records say, goes into `note`.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

# Of the case that runs now; the runner empties both before each case.
NOTES: dict[str, object] = {}
PROCESSES: list[int] = []

# Where a case may write; the same folder for each pass of one command, so that what is built natively is used under LightOS.
SCRATCH = os.environ.get("LIGHTOS_CASES_SCRATCH", "")


class Skip(Exception):
    """The case cannot run on this machine, natively either; the text says why."""


def register(prepare=lambda: None):
    """The cases of a file and the decorator that adds one; `prepare` runs before each. `@case(once=True)` is for a step that
    is a whole program: it is called once and not timed. `may_refuse`: LightOS need not carry it, if it says so by name."""
    cases = {}

    def case(function=None, *, once: bool = False, may_refuse: bool = False):
        if function is None:
            return lambda function: case(function, once=once, may_refuse=may_refuse)

        def prepared():
            prepare()
            return function()

        prepared.once, prepared.may_refuse = once, may_refuse
        prepared.what = (function.__doc__ or "").strip().split("\n")[0]
        cases[function.__name__] = prepared
        return function

    return cases, case


def need(name: str):
    """The module `name`, or `Skip` where it or something it needs is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise Skip(f"{error.name} is not installed") from error


def note(name: str, value) -> None:
    """Keeps a fact about the run beside the result; facts are recorded and not compared."""
    NOTES[name] = value


def belongs(pid: int) -> None:
    """Counts the launches of process `pid`, which the case has started, as the case's."""
    PROCESSES.append(pid)


def run(command: list[str], seconds: float = 60, **environment: str) -> str:
    """What a program writes to stdout. It runs under whatever this process runs under; its launches count as the case's."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment)
    belongs(process.pid)
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise RuntimeError(f"no end within {seconds:.0f} s: {(out + err)[-400:]}") from None
    if process.returncode:
        raise RuntimeError(f"exit status {process.returncode}: {(out + err).strip()[-500:]}")
    return out


def run_python(program: str, seconds: float = 60, **environment: str) -> str:
    return run([sys.executable, "-c", program], seconds, **environment)

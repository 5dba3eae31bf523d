"""Holds the shim's table against the driver of this machine: every cu* function that libcuda.so.1 exports must be known to the shim.

    python3 tests/gpu/exports.py --dist dist [--driver /path/to/libcuda.so.1]

Reads both files alone, runs nothing of them. The shim holds the exact name of every function that it forwards, refuses or leaves to the driver. A
name that it lacks is still refused and reported at run time, never passed on unseen; here it is a failure, because it wants a decision.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import struct
import sys
from pathlib import Path


def exported(path: Path) -> set[str]:
    """Names of the functions that a 64-bit little-endian ELF library defines in its dynamic symbol table."""
    data = path.read_bytes()
    assert data[:6] == b"\x7fELF\x02\x01", f"{path} is no 64-bit little-endian ELF file"
    table, entry_bytes, count = struct.unpack_from("<Q", data, 0x28)[0], *struct.unpack_from("<HH", data, 0x3A)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, table + index * entry_bytes) for index in range(count)]
    names = set()
    for _, kind, _, _, offset, size, link, _, _, each in sections:
        if kind != 11:  # SHT_DYNSYM
            continue
        strings = sections[link][4]
        for at in range(offset, offset + size, each):
            name, info, _, defined, value, _ = struct.unpack_from("<IBBHQQ", data, at)
            if defined and value and info & 15 in (2, 10):  # functions, plain and resolved at load time
                end = data.index(b"\0", strings + name)
                names.add(data[strings + name : end].decode())
    return names


def driver() -> Path:
    ctypes.CDLL("libcuda.so.1")
    maps = Path("/proc/self/maps").read_text()
    return Path(next(line.split()[-1] for line in maps.splitlines() if "libcuda.so" in line))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dist", type=Path, default=Path("dist"))
    parser.add_argument("--driver", type=Path)
    arguments = parser.parse_args()
    library = arguments.driver or driver()
    known = {name.decode() for name in re.findall(rb"(?<![A-Za-z0-9_])cu[A-Za-z0-9_]+(?=\0)", (arguments.dist / "liblightos_intercept.so").read_bytes())}
    names = {name for name in exported(library) if re.match(r"cu[A-Z]", name)}
    unknown = sorted(names - known)
    for name in unknown:
        print(f"UNKNOWN {name}: add it to an area, to `refuse!` or to `local!` in preload/src/hooks")
    print(f"{library.name}: {len(names) - len(unknown)} of {len(names)} functions are in the shim's table")
    print(f"{len(names) - len(unknown)} passed, {len(unknown)} failed")
    return 1 if unknown or not names else 0


if __name__ == "__main__":
    sys.exit(main())

"""`python cases.py NAME` runs one case of the package `cases` and prints its results as one JSON line.

Arrays are printed as SHA-256 of their bytes, so that a native run and a run under the shim can be compared bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import sys

import numpy as np

# The package of the same name, which goes before this file.
from cases import CASES
from device import Session


def digest(value):
    if isinstance(value, np.ndarray):
        return {"sha256": hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest(), "shape": list(value.shape)}
    if isinstance(value, dict):
        return {k: digest(v) for k, v in value.items()}
    return value


def main(name: str) -> int:
    print(json.dumps(digest(CASES[name](Session())), sort_keys=True))
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in CASES:
        print("usage: cases.py NAME, one of:", *sorted(CASES), file=sys.stderr)
        sys.exit(2)
    sys.exit(main(sys.argv[1]))

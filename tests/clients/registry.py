"""The cases by name, and how a case checks itself.

A case is a function that takes a `Session` and returns plain values and arrays. It checks itself against numpy, so that
equal but wrong results of two runs fail too. Nothing here or in `cases` touches CUDA when it is imported.
"""

from __future__ import annotations

import numpy as np

CASES = {}


def case(function):
    assert function.__name__ not in CASES, function.__name__
    CASES[function.__name__] = function
    return function


def check(got: np.ndarray, want: np.ndarray, tolerance: float = 0.0):
    if tolerance == 0.0:
        np.testing.assert_array_equal(got, want)
    else:
        np.testing.assert_allclose(got, want, rtol=tolerance)
    return got

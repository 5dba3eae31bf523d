"""Whether a series of readings grows, judged so that noise does not count and a slow leak does.

The slope is Theil's and Sen's: the median of the slopes between all pairs of readings, which single outliers do not move. Its error follows
from the spread of the readings about the line, by their median absolute deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import median

MIB = 1 << 20
# Resident memory comes in arenas and pages: less than this in the whole run is no growth, whatever its slope.
RSS_FLOOR_BYTES = MIB
RSS_LIMIT_BYTES_PER_HOUR = MIB
# Errors of the slope that growth must exceed.
CERTAINTY = 3.0


@dataclass
class Verdict:
    first: float
    last: float
    per_hour: float
    error_per_hour: float
    grows: bool


def slope(times: list[float], values: list[float]) -> tuple[float, float]:
    """Per second, and its standard error."""
    pairs = [(values[j] - values[i]) / (times[j] - times[i]) for i in range(len(times)) for j in range(i + 1, len(times))]
    steep = median(pairs)
    level = median(v - steep * t for t, v in zip(times, values))
    spread = 1.4826 * median(abs(v - level - steep * t) for t, v in zip(times, values))
    middle = sum(times) / len(times)
    return steep, spread / sqrt(sum((t - middle) ** 2 for t in times))


def thirds(values: list[float]) -> tuple[float, float]:
    """The medians of the first and the last third."""
    part = max(1, len(values) // 3)
    return median(values[:part]), median(values[-part:])


def resident(times: list[float], values: list[float]) -> Verdict:
    """Resident memory grows where its slope is certainly above the limit and the run has seen more than the floor."""
    steep, error = slope(times, values)
    certain = (steep - CERTAINTY * error) * 3600 > RSS_LIMIT_BYTES_PER_HOUR
    return Verdict(*thirds(values), steep * 3600, error * 3600, certain and steep * (times[-1] - times[0]) > RSS_FLOOR_BYTES)


def bounded(times: list[float], values: list[float]) -> Verdict:
    """What has a bound that warm-up reaches, as descriptors, threads and device memory with its caches: growth is where a tenth of the
    last third lies above everything in the first."""
    first, last = thirds(values)
    part = max(1, len(values) // 3)
    high = sorted(values[-part:])[-1 - part // 10]
    steep, error = slope(times, values)
    return Verdict(first, last, steep * 3600, error * 3600, high > max(values[:part]))

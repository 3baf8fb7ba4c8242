"""Peak memory of a process, in one unit (MB = 10^6 bytes) on every system."""

import re
import resource
import sys
from pathlib import Path

import psutil


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB of 10^6 bytes."""
    return round(_peak_bytes() / 1e6, 1)


def _peak_bytes() -> int:
    usage = psutil.Process().memory_info()
    if hasattr(usage, "peak_wset"):  # Windows
        return int(usage.peak_wset)
    try:  # Linux; its getrusage would give a new process the peak of the one that started it
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found:
        return max(int(found[1]) * 1024, int(usage.rss))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS, KiB elsewhere
    return max(peak * (1 if sys.platform == "darwin" else 1024), int(usage.rss))

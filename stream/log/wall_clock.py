"""What time it is on this host (shell)."""

import time


def wall_clock_ms() -> int:
    """Milliseconds since 1970. It may go back; what is waited for is timed by a monotonic clock."""
    return time.time_ns() // 1_000_000

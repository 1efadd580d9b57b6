"""Freed memory that stays with the process: fewer page faults for the same work."""

import platform
import subprocess
import sys

import pytest

from everspun.roles.heap import keep_freed_memory

#: Three blocks of 4 MB a round, taken and given back; the faults of the rounds.
ROUNDS = """
import resource, sys
import numpy as np
from everspun.roles.heap import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
def work():
    blocks = [np.ones(4_000_000, np.uint8) for _ in range(3)]
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked")
def test_the_next_batch_finds_its_memory():
    faults = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", ROUNDS, how], capture_output=True, text=True, check=True
            ).stdout
        )
        for how in ("kept", "given back")
    }
    assert faults["kept"] < faults["given back"] / 10


def test_it_says_whether_the_c_library_took_it():
    assert keep_freed_memory() is (platform.libc_ver()[0] == "glibc")

"""How a process that passes chunks of mails along treats its memory.

A chunk is megabytes of bytes and thousands of objects, made and dropped many times a second. What
Python and glibc do by default with that takes more time than to copy it.
"""

import ctypes
import gc
import sys
from typing import Final

GC_THRESHOLDS: Final = (7_000, 10, 10)  # Python 3.11 looks at the young ones every 700
M_TRIM_THRESHOLD: Final = -1  # of <malloc.h>
M_MMAP_THRESHOLD: Final = -3
M_ARENA_MAX: Final = -8
ARENAS: Final = 4  # heaps that threads share; glibc would make up to eight a core
KEPT: Final = 64 << 20  # bytes of free memory that stay with the process, in each of them
LARGE: Final = 32 << 20  # bytes of a buffer that has pages of its own; no more is allowed


def keep_memory() -> None:
    """Look for cycles seldom, for chunks have none, and use the pages of dropped buffers again.

    Pages given back to the kernel come again as zeros, one fault each: two thirds of the time that
    2 MB take from one replica to another. Does nothing of the kind where there is no glibc.
    """
    gc.set_threshold(*GC_THRESHOLDS)
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_ARENA_MAX, ARENAS)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)
        libc.mallopt(M_TRIM_THRESHOLD, KEPT)

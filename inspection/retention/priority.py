"""Puts this process behind everything else on the computer, so that retention takes next to nothing that others need.

Not the scheduler's idle class: on a computer whose processors are always busy that gets nothing at all, and the disk fills.
"""

import ctypes
import os
import platform
from contextlib import suppress

_IOPRIO_SET = {"x86_64": 251, "aarch64": 30, "riscv64": 30}  # the system call has no name in the C library
_PROCESS, _IDLE = 1, 3 << 13


def step_back() -> tuple[str, ...]:
    """Take the lowest processor and disk priority; gives in words what the system granted."""
    granted = []
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, 0, 19)
        granted.append("nice 19")
    with suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        granted.append("batch processor class")
    if _idle_disk_class():
        granted.append("idle disk class")
    return tuple(granted)


def _idle_disk_class() -> bool:
    number = _IOPRIO_SET.get(platform.machine())
    if platform.system() != "Linux" or number is None:
        return False
    with suppress(OSError, AttributeError):
        return bool(ctypes.CDLL(None, use_errno=True).syscall(number, _PROCESS, 0, _IDLE) == 0)
    return False

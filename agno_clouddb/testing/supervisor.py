"""Runs a command for as long as the process that asked for it lives; started as a script by ``process.py``.

An emulator may be a wrapper whose children outlive it, and a test run may end without running any of its own code, as
on SIGKILL. So the command gets a process group of its own, and this supervisor ends that whole group as soon as its
standard input, a pipe from the test run, is closed by whatever way the test run comes to its end. Each byte that it
reads there is the number of a signal, which it sends to the group.

The module imports nothing but the standard library, since it is run by path.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from types import FrameType

_POLL = 0.1  # seconds between two looks at the command
_GRACE = 5.0  # seconds that the group has to end by itself


def main(command: list[str]) -> int:
    """Run ``command`` until it ends or the parent does; returns its exit status."""
    parent = os.getppid()
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, _leave)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        # A child that the test run has forked holds the pipe open too, hence the look at the parent.
        while child.poll() is None and os.getppid() == parent:
            readable, _, _ = select.select([0], [], [], _POLL)
            if readable:
                signum = os.read(0, 1)
                if not signum:
                    break
                _signal_group(child, signum[0])
    finally:
        _end_group(child)
    return child.returncode


def _leave(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def _end_group(child: subprocess.Popen[bytes]) -> None:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    _signal_group(child, signal.SIGCONT)  # what is stopped would not hear of SIGTERM
    for signum in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _GRACE
        left = _signal_group(child, signum)
        while left and time.monotonic() < deadline:
            time.sleep(_POLL / 2)
            left = _signal_group(child, 0)
        if not left:
            break
    child.wait()


def _signal_group(child: subprocess.Popen[bytes], signum: int) -> bool:
    """Signal the group of ``child``; whether any process is left in it."""
    child.poll()
    try:
        os.killpg(child.pid, signum)
    except (ProcessLookupError, PermissionError):  # macOS says the latter of a group of zombies
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Which process runs a trial: another one of its machine sees at once that it is gone."""

import os
import socket
from pathlib import Path

PROC = Path("/proc")


def this_process() -> str | None:
    """Return the name of this process among all of all machines; None where there is no /proc."""
    try:
        return f"{_kernel()} {os.getpid()} {_started(os.getpid())}"
    except OSError:
        return None


def has_ended(process: str) -> bool:
    """Return whether a process has ended for certain; of another machine's nothing is known."""
    try:
        kernel, pid, started = process.rsplit(" ", 2)
        return kernel == _kernel() and _started(int(pid)) != started
    except (OSError, ValueError, OverflowError):  # not to be seen, or none of our names
        return False


def _kernel() -> str:
    """Return the scope of unique process ids: a boot of a machine, and a namespace on it."""
    boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    # Machines that were copied while they ran have one boot in common, but seldom a name.
    return f"{socket.gethostname()} {boot} {(PROC / 'self/ns/pid').stat().st_ino}"


def _started(pid: int) -> str | None:
    """Return the time at which a running process began; None if there is none of this number."""
    try:
        status = (PROC / str(pid) / "stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        try:
            os.kill(pid, 0)  # which sends nothing, and knows of processes that are hidden from us
        except ProcessLookupError:
            return None
        raise
    # The name, the second field, may hold anything, parentheses and spaces too.
    state, *fields = status.rpartition(b")")[2].split()
    return None if state in (b"Z", b"X") else fields[18].decode("ascii")

"""Runs a team's command, and ends its whole tree when the process that asked for it is gone.

    python -I -S _guard.py ALIVE STATUS PROGRAM WORD…

It is a program of its own, since a process killed by SIGKILL ends nothing. ALIVE is the reading end of a pipe, of which
the asking process alone has the other end: the kernel closes it, however that process ends. Where a child of that
process has inherited the end, the parent's process id changes all the same; it is looked at every second.

On Linux this process also becomes the parent of what the command leaves behind: processes in sessions of their own are
ended, too. Elsewhere the command's process group is, and what has left it lives on.

It ends as the command did. A start that failed is written to STATUS, as `errno` and the system's sentence.
"""

import ctypes
import os
import resource
import select
import signal
import sys
import threading
import time

_SET_CHILD_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER of Linux's prctl(2)."""
_LOOK_S = 1.0
_ENDING_S = 10.0
_ENDING_LOOK_S = 0.02


def main(alive: int, status: int, program: str, words: list[str]) -> int:
    """Run the command; return its exit code, 127 where it cannot be started."""
    parent = os.getppid()
    for inherited in (alive, status):
        os.set_inheritable(inherited, False)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        # Python ignores these signals, and a program would inherit that.
        defaults = [signal.SIGPIPE, signal.SIGXFSZ]
        child = os.posix_spawnp(program, [program, *words], os.environ, setsigdef=defaults)
    except OSError as error:
        os.write(status, f"{error.errno} {error.strerror}".encode())
        return 127
    deciding = threading.Lock()
    threading.Thread(target=_watch, args=(alive, parent, deciding), daemon=True).start()
    try:
        _, ended = os.waitpid(child, 0)
    except ChildProcessError:
        ended = 0  # the other thread is ending the tree, and has reaped it
    with deciding:  # never released where the tree is being ended: that ends this process
        code = os.waitstatus_to_exitcode(ended)
        if code < 0:
            _end_like(-code)
        return code


def _watch(alive: int, parent: int, deciding: threading.Lock) -> None:
    while os.getppid() == parent:
        if select.select([alive], [], [], _LOOK_S)[0]:
            break
    with deciding:
        _end_tree()
        os.killpg(os.getpgid(0), signal.SIGKILL)


def _end_tree() -> None:
    """Kill every process below this one, until there is none: what is orphaned meanwhile becomes this one's child."""
    deadline = time.monotonic() + _ENDING_S
    while (found := _list_below(os.getpid())) and time.monotonic() < deadline:
        for process_id in found:
            try:
                os.kill(process_id, signal.SIGKILL)
            except OSError:
                continue
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        time.sleep(_ENDING_LOOK_S)


def _list_below(root: int) -> list[int]:
    """List the living processes below one, on Linux; elsewhere none."""
    children: dict[int, list[int]] = {}
    try:
        names = [name for name in os.listdir("/proc") if name.isdecimal()]
    except OSError:
        return []
    for name in names:
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state not in "ZX":
            children.setdefault(int(parent), []).append(int(name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _end_like(number: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]))

"""A pipe by which the processes of a run learn that their launcher is gone."""

import os
import signal
import threading

#: Environment: the descriptor of a pipe that ends with the launcher.
LAUNCHER_PIPE = "EVERSPUN_LAUNCHER_PIPE"


def environment(pipe: int) -> dict[str, str]:
    """Two cores are shared by ten processes: no role needs a pool of maths threads beyond what
    its config says."""
    env = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        env.setdefault(name, "1")
    env["PYTHONUNBUFFERED"] = "1"
    env[LAUNCHER_PIPE] = str(pipe)
    return env


def die_with_launcher() -> None:
    """Called by a role's process: if the launcher that started it is gone, it stops in order. The
    launcher holds one end of a pipe and writes nothing: the other end ends with it, however it
    ends, and whichever thread of it started this process (to Linux's PR_SET_PDEATHSIG the parent
    would be that thread)."""
    pipe = os.environ.pop(LAUNCHER_PIPE, "")
    if not pipe or pipe == "0":
        return

    def wait() -> None:
        while os.read(int(pipe), 1):
            pass  # it never writes
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="launcher", daemon=True).start()

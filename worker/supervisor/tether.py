"""Run as a script: tie this process to its supervisor's life, then become the command.

Linux kills it when the supervisor dies, however that dies; other systems have no such tie. It runs
between fork and exec because running Python there in the supervisor itself could deadlock on a lock that
another of its threads held.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    supervisor, argv = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it died before the tie was made
        sys.exit("the supervisor is gone")
    try:
        os.execv(argv[0], argv)  # noqa: S606  # becoming the command is the point
    except OSError as exc:
        sys.exit(f"{argv[0]}: {exc.strerror}")


if __name__ == "__main__":
    main()

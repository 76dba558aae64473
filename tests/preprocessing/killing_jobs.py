"""Jobs of test_failures.py that kill the process they run in.

Each death costs a new process, which imports this file and nothing that takes seconds.
"""

import os
import signal
import time

from avkit.core import reason_of


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def odd_or_double(i, odd):
    if i in odd:
        time.sleep(0.2)
        die()
    return 2 * i


def told(e, i, *_):
    return f"{i}: {reason_of(e)}"

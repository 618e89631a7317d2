"""Run commands where a peer lives, and tell how long each took: the program of a process of its own.

It reads a command from each line of standard input, in JSON, and answers with a line. It uses nothing but the
standard library, for it is run by whatever Python is in that place, from its text.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Do the requests until nobody sends any more, and end the processes left running."""
    print("ready", flush=True)
    running: list[subprocess.Popen[bytes]] = []
    try:
        for line in sys.stdin:
            asked = json.loads(line)
            answer = _launch(asked, running) if asked["stays"] else _run(asked)
            print(json.dumps(answer), flush=True)
    except BrokenPipeError:
        pass  # who asked has died
    finally:
        for process in running:
            process.kill()
            process.wait()


def _launch(asked: dict[str, Any], running: list[subprocess.Popen[bytes]]) -> dict[str, Any]:
    """Start a process that stays; the answer comes when it has been started, not when it is ready."""
    with Path("/tmp/launched.log").open("ab") as log:  # noqa: S108 - the place's own
        process = subprocess.Popen(asked["argv"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    running.append(process)
    return {"status": 0, "seconds": 0.0, "kibibytes": 0, "output": "", "pid": process.pid}


def _run(asked: dict[str, Any]) -> dict[str, Any]:
    """Run a command to its end, or to the end of its time."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as given:
        given.write(asked["stdin"].encode())
        given.seek(0)
        began = time.perf_counter()
        process = subprocess.Popen(
            asked["argv"], stdin=given, stdout=output, stderr=output, start_new_session=True
        )
        clock = threading.Timer(asked["limit"], os.killpg, (process.pid, signal.SIGKILL))
        clock.start()
        _, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        clock.cancel()
        output.seek(0)
        return {
            "status": process.returncode,
            "seconds": took,
            "kibibytes": usage.ru_maxrss,
            "output": output.read().decode(errors="replace"),
            "pid": process.pid,
        }


if __name__ == "__main__":
    main()

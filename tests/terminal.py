"""Runs commands at a terminal and types into it, as a person does.

Reads one JSON object per line from standard input and answers each with one:

    {"command": [program, argument, ...], "directory": text, "after": what it must have said, "type": text}
    {"code": exit code, negative for a signal, "output": text, "echo": whether the terminal shows what is typed, at the end}
"""

import fcntl
import json
import os
import pty
import select
import subprocess
import sys
import termios
import time

TIMEOUT = 30


def main():
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), flush=True)


def run(command, directory, after, type):
    terminal, other_end = pty.openpty()
    child = subprocess.Popen(
        command, cwd=directory, stdin=other_end, stdout=other_end, stderr=other_end, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    output, typed, code, deadline = b"", False, None, time.monotonic() + TIMEOUT
    while code is None and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.05)[0]:
            output += os.read(terminal, 4096)
        if not typed and after.encode() in output and not shows(other_end):
            os.write(terminal, type.encode())
            typed = True
        code = child.poll()
    while select.select([terminal], [], [], 0.05)[0]:
        output += os.read(terminal, 4096)
    child.kill()
    return {"code": code, "output": output.decode(errors="replace"), "echo": shows(other_end)}


def shows(terminal):
    return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)


main()

"""The command line in processes that are killed on the way."""

import subprocess
import sys

STARTS = """
import contextlib, io, os, signal, sys, time, torch
torch.set_num_threads(1)
{first}
from vj2_ddim_plugin.cli import main

with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    with contextlib.suppress(SystemExit):
        main(sys.argv[1:])  # once here: what it imports is there for all
print("ready", flush=True)
for line in sys.stdin:  # seconds to live or "", the largest file in bytes or "", the arguments
    life, largest, *words = line.rstrip("\\n").split("\\t")
    began, child = time.monotonic(), os.fork()
    if child == 0:
        file = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1), os.dup2(file, 2)
        if largest:
            import resource
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest),) * 2)
        try:
            main(words)
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        except BaseException:
            import traceback
            traceback.print_exc()
            status = 99
        os._exit(status)
    if life:
        time.sleep(float(life))
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status, time.monotonic() - began, flush=True)
"""


class Commands:
    """Runs one command after the other in a folder, without importing anew for each.

    The `words` are run in the process that they are all forked from.
    """

    def __init__(self, folder, *words, first=""):
        self.folder = folder
        code = STARTS.format(first=first)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = [sys.executable, "-c", code, *map(str, words)]
        self.process = subprocess.Popen(command, cwd=folder, **pipes)
        assert self.process.stdout.readline() == "ready\n"

    def __call__(self, *words, life="", largest=""):
        """The exit status (-9 if it was killed after its life), its seconds and what it said."""
        self.process.stdin.write("\t".join(map(str, (life, largest, *words))) + "\n")
        self.process.stdin.flush()
        told = self.process.stdout.readline()
        assert told, f"the process that forks has ended itself: {self.process.wait()}"
        status, seconds = told.split()
        return int(status), float(seconds), (self.folder / "said.txt").read_text()

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

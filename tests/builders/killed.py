"""The command line in processes that are killed on the way."""

import subprocess
import sys

STARTS = """
import os, signal, sys, time
{imports}
from vj2_ddim_plugin.cli import main
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
    """Runs one command after the other in a folder, without importing anew for each."""

    def __init__(self, folder, imports):
        self.folder = folder
        code = STARTS.format(imports=imports)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, **pipes)
        assert self.process.stdout.readline() == "ready\n"

    def __call__(self, *words, life="", largest=""):
        """The exit status (-9 if it was killed after its life), its seconds and what it said."""
        self.process.stdin.write("\t".join(map(str, (life, largest, *words))) + "\n")
        self.process.stdin.flush()
        status, seconds = self.process.stdout.readline().split()
        return int(status), float(seconds), (self.folder / "said.txt").read_text()

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()

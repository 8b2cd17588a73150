"""`python -m vj2_ddim_training`: exactly `vj2-ddim train`, for `torchrun -m` to start.

Of several processes, the first alone says anything but errors.
"""

import contextlib
import os
import sys

from vj2_ddim_plugin.cli import main

if __name__ == "__main__":
    with contextlib.ExitStack() as stack:
        if int(os.environ.get("RANK", 0)) > 0:
            quiet = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(quiet))
        main(["train", *sys.argv[1:]])

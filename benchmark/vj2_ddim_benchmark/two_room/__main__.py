"""`python -m vj2_ddim_benchmark.two_room --out FOLDER`."""

import typer

from vj2_ddim_benchmark.two_room.commands import two_room

if __name__ == "__main__":
    typer.run(two_room)

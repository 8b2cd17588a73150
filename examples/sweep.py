"""Train every combination of a sweep's values here, without a network.

    python examples/sweep.py [SWEEP.yaml]

The runs are `sweep/grid-1`, `sweep/grid-2`, ...: each is told what `wandb agent` would tell it.
"""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import yaml


def combinations(parameters: dict) -> list[dict]:
    """Every choice of one value of each parameter."""
    values = {name: of.get("values", [of.get("value")]) for name, of in parameters.items()}
    every = itertools.product(*values.values())
    return [dict(zip(values, chosen, strict=True)) for chosen in every]


def command_of(sweep: dict, chosen: dict) -> list[str]:
    """The command of one run, as `wandb agent` builds it."""
    parts = {
        "${program}": [sweep["program"]],
        "${args}": [f"--{name}={value}" for name, value in chosen.items()],
    }
    return [word for part in sweep["command"] for word in parts.get(part, [part])]


def main(file: str = str(Path(__file__).with_name("sweep.yaml"))) -> None:
    """Train them one after the other, and say which is the best by the sweep's metric."""
    if not Path("base.yaml").exists():
        print("there is no base.yaml here, which says what all runs share: data_dir and so on")
        return
    sweep = yaml.safe_load(Path(file).read_text())
    measure, found = sweep["metric"]["name"].removeprefix("val/"), []
    for number, chosen in enumerate(combinations(sweep["parameters"]), 1):
        run = f"grid-{number}"
        told = {**os.environ, "WANDB_RUN_ID": run}
        subprocess.run(command_of(sweep, chosen), env=told, check=True)
        last = json.loads(Path("sweep", run, "metrics.jsonl").read_text().splitlines()[-1])
        protocol = last.get("conditional") or last["denoise@0.5"]
        found.append((next(iter(protocol.values()))[measure], run, chosen))
    best = max if sweep["metric"]["goal"] == "maximize" else min
    print(f"the best {measure}:", *best(found, key=lambda each: each[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What must stay the same, and the one place that reaches the code to see whether it does.

Floating-point kernels differ between processors and between releases of the libraries. So a
recording keeps both the values and, for each machine it was made on, the sha256 of their bytes. On
such a machine (see `fingerprint`) the bytes have to be equal, bit for bit. On any other the values
have to be close, and whatever is not a floating-point number has to be equal there too.

    GOLDEN_RECORD=1 pytest tests/golden        records anew
    GOLDEN_RECORD=hashes pytest tests/golden   compares, then adds the hashes of this machine

Recording anew is for one case only: a change of behaviour that is intended, and named in
CHANGELOG. A change that only moves, renames or speeds up code must leave every recording as it is;
what it may change is the lower part of this file, where modules are imported by name.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

FOLDER = Path(__file__).parent
RECORD = os.environ.get("GOLDEN_RECORD", "")
if RECORD not in ("", "1", "hashes"):
    raise ValueError(f"GOLDEN_RECORD must be 1 or hashes; found {RECORD!r}")

FLAGS = ("avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni")
FLAGS += ("amx_tile", "amx_int8", "amx_bf16", "asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve")
KERNEL_VARIABLES = (
    "OPENBLAS_CORETYPE", "ATEN_CPU_CAPABILITY", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "NPY_DISABLE_CPU_FEATURES",
)  # fmt: skip


def fingerprint():
    """All that decides which kernels run, and with them the last bits of a result."""
    cpu = {}
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines():
            name, _, value = line.partition(":")
            cpu[name.strip()] = value.strip()
    flags = (cpu.get("flags") or cpu.get("Features") or "").split()
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu.get("model name") or platform.processor(),
        "cpu_family": "/".join(cpu.get(name, "") for name in ("cpu family", "model", "stepping")),
        "flags": sorted(set(flags) & set(FLAGS)),
        "numpy": np.__version__,
        "onnxruntime": _version("onnxruntime-gpu") or _version("onnxruntime"),
        "torch": str(torch.__version__),
        "environment": {name: os.environ.get(name) for name in KERNEL_VARIABLES},
    }


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


class Digest:
    """Arrays too large to keep: their hash alone is kept; something else must tell of them too."""

    def __init__(self, arrays):
        self.arrays = arrays


def sha256(value):
    """Of a float, of an array with its type and shape, or of a named collection of arrays."""
    digest = hashlib.sha256()
    arrays = value.arrays if isinstance(value, Digest) else {"": value}
    for name, array in sorted(arrays.items()):
        array = np.ascontiguousarray(array)
        digest.update(f"{name}\0{array.dtype.str}{array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def is_inexact(value):
    """Whether it may differ between machines."""
    if isinstance(value, Digest | float | np.floating):
        return True
    return isinstance(value, np.ndarray) and value.dtype.kind == "f"


class Golden:
    """The recording `NAME.json` (everything but arrays) and `NAME.npz` (the arrays)."""

    def __init__(self, name):
        self.json, self.npz = FOLDER / f"{name}.json", FOLDER / f"{name}.npz"
        content = json.loads(self.json.read_text()) if self.json.exists() else {}
        self.values, self.machines = content.get("values", {}), content.get("machines", [])
        self.arrays = {}
        if self.npz.exists():
            with np.load(self.npz) as file:
                self.arrays = dict(file)
        self.machine = fingerprint()
        known = [each["sha256"] for each in self.machines if each["machine"] == self.machine]
        self.hashes = known[0] if known else None
        self.changed = False

    def check(self, key, values, *, rtol, atol):
        """Compare named values with those of the recording; or record them.

        Args:
            key: Names them.
            values: By name: arrays, floats, `Digest`s, or anything that JSON can hold.
            rtol: How far floats may be off on another machine, relative to their size.
            atol: Likewise, not relative.
        """
        assert not all(isinstance(value, Digest) for value in values.values()), key
        if RECORD == "1":
            self._record(key, values)
            return
        recorded = self.values.get(key, {})
        names = {name[len(key) + 1 :] for name in self.arrays if name.startswith(f"{key}|")}
        assert recorded or names, f"{key} was never recorded"
        assert set(values) == set(recorded) | names, f"{key} has other values than were recorded"
        for name, found in values.items():
            expected = recorded[name] if name in recorded else self.arrays[f"{key}|{name}"]
            self._compare(f"{key}|{name}", found, expected, rtol, atol)
        if RECORD == "hashes" and self.hashes is None:
            self._add_hashes(key, values)

    def _compare(self, name, found, expected, rtol, atol):
        if not is_inexact(found):
            if isinstance(found, np.ndarray):
                assert found.dtype == expected.dtype, name
                np.testing.assert_array_equal(found, expected, err_msg=name)
            else:
                assert plain(found) == expected, name
            return
        same_machine = self.hashes is not None
        if not isinstance(found, Digest):
            exact = {"rtol": 0.0, "atol": 0.0}
            limits = exact if same_machine else {"rtol": rtol, "atol": atol}
            assert np.shape(found) == np.shape(expected), name
            assert not isinstance(found, np.ndarray) or found.dtype == expected.dtype, name
            np.testing.assert_allclose(found, expected, **limits, equal_nan=True, err_msg=name)
        if same_machine:
            assert sha256(found) == self.hashes[name], f"{name} differs in its last bits"

    def _record(self, key, values):
        self.arrays = {n: array for n, array in self.arrays.items() if not n.startswith(f"{key}|")}
        self.values[key] = {}
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                self.arrays[f"{key}|{name}"] = value
            else:
                self.values[key][name] = None if isinstance(value, Digest) else plain(value)
        self.machines = [each for each in self.machines if each["machine"] == self.machine]
        self._add_hashes(key, values)

    def _add_hashes(self, key, values):
        if self.machine not in [each["machine"] for each in self.machines]:
            self.machines.append({"machine": self.machine, "sha256": {}})
        (hashes,) = (m["sha256"] for m in self.machines if m["machine"] == self.machine)
        for name in [name for name in hashes if name.startswith(f"{key}|")]:
            del hashes[name]
        inexact = {name: value for name, value in values.items() if is_inexact(value)}
        hashes |= {f"{key}|{name}": sha256(value) for name, value in inexact.items()}
        self.changed = True

    def save(self):
        """Write what was recorded, if anything was."""
        if self.changed:
            content = {"machines": self.machines, "values": self.values}
            self.json.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
            if RECORD == "1" and self.arrays:
                np.savez_compressed(self.npz, **dict(sorted(self.arrays.items())))


def plain(value):
    """The value as it comes back from JSON."""
    return json.loads(json.dumps(value, default=_plain))


def _plain(value):
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def of_weights(weights):
    """A hash of named weights, and of each its mean, norm, first and last entry."""
    arrays = {name: np.asarray(weight) for name, weight in sorted(weights.items())}
    wide = [array.astype(np.float64).ravel() for array in arrays.values()]
    rows = [[each.mean(), np.sqrt(np.square(each).sum()), each[0], each[-1]] for each in wide]
    return {"weights": Digest(arrays), "names": list(arrays), "in_short": np.array(rows)}


# Everything below reaches the code under test; nothing else in this folder does.

from vj2_ddim_benchmark import benchmark as benchmark_module  # noqa: E402
from vj2_ddim_benchmark.amortised.training import train_amortised  # noqa: E402
from vj2_ddim_benchmark.assets import shipped_assets  # noqa: E402
from vj2_ddim_benchmark.assets.build import collect_latents  # noqa: E402
from vj2_ddim_benchmark.assets.settings import AssetSettings  # noqa: E402
from vj2_ddim_benchmark.benchmark import Benchmark  # noqa: E402
from vj2_ddim_benchmark.planners.description import read_tuned  # noqa: E402
from vj2_ddim_benchmark.planners.registry import REGISTRY, planners_of  # noqa: E402
from vj2_ddim_benchmark.settings import TUNED_DIR, RaceSettings  # noqa: E402
from vj2_ddim_benchmark.world.policies import mixed_policy  # noqa: E402
from vj2_ddim_benchmark.world.problems import one_gesture_problems  # noqa: E402
from vj2_ddim_benchmark.world.screen import TouchScreen  # noqa: E402
from vj2_ddim_benchmark.world_model.config import WorldModelConfig  # noqa: E402
from vj2_ddim_benchmark.world_model.model import LatentCost, WorldModel  # noqa: E402
from vj2_ddim_benchmark.world_model.train import train_world_model  # noqa: E402
from vj2_ddim_plugin import (  # noqa: E402
    ActionSpec,
    DDIMOptimizer,
    NoiseSchedule,
    PlanConstraints,
    PlanningProblem,
)
from vj2_ddim_plugin.adapters.vj2_gui import VJ2GUIPlanner  # noqa: E402
from vj2_ddim_plugin.bundle import RANKER, read_bundle  # noqa: E402
from vj2_ddim_plugin.planning import SearchSettings  # noqa: E402
from vj2_ddim_plugin.schedule import ORIGINAL_SCHEDULE  # noqa: E402
from vj2_ddim_training.checkpoint import load_checkpoint  # noqa: E402
from vj2_ddim_training.config import ModelConfig, RankerConfig, RunSettings, TrainingConfig  # noqa: E402
from vj2_ddim_training.data.generate import generate_gestures  # noqa: E402
from vj2_ddim_training.data.trajectories import write_trajectories_h5  # noqa: E402
from vj2_ddim_training.examples import open_examples  # noqa: E402
from vj2_ddim_training.ranker.training import train_ranker  # noqa: E402
from vj2_ddim_training.run import train_run  # noqa: E402

SHIPPED = shipped_assets()
SETTINGS = {  # every class whose defaults are a promise
    each.__name__: each
    for each in (
        ActionSpec, NoiseSchedule, ModelConfig, TrainingConfig, RankerConfig, WorldModelConfig,
    )
}  # fmt: skip


def one_thread():
    """The sum of a layer depends on how many threads share it; other tests may ask for more."""
    torch.set_num_threads(1)


# Plans.


def open_optimizer(**settings):
    """The shipped bundle on the CPU, opened anew."""
    return DDIMOptimizer.from_bundle(SHIPPED.bundle, provider="cpu", num_threads=1, **settings)


@functools.cache
def _model():
    return open_optimizer(num_candidates=2, num_inference_steps=2).model


def make_optimizer(**settings):
    """The same on a model that is opened once."""
    return DDIMOptimizer(_model(), **settings)


def make_problem(constraints=None, **fields):
    """A problem; its constraints as a mapping."""
    constraints = None if constraints is None else PlanConstraints(**constraints)
    return PlanningProblem(constraints=constraints, **fields)


def plan_of(result):
    """What of a plan is to be the same; of the times nothing."""
    return {
        "actions": result.actions,
        "cost": np.asarray(result.cost),
        "history": np.asarray(result.history),
        "projection_distance": np.asarray(result.projection_distance),
        "num_cost_evaluations": int(result.num_cost_evaluations),
        "num_denoiser_evaluations": int(result.num_denoiser_evaluations),
        "stopped_because": result.stopped_because,
        "planned_by": result.planned_by,
        "provider": result.provider,
        "failures": list(result.failures),
    }


def plan_through_vj2_gui(z_context, z_goal, predictor, previous=None):
    """The plan of the adapter for VJ2-GUI, and its cost."""
    one_thread()
    planner = VJ2GUIPlanner(
        SHIPPED.bundle, provider="cpu", num_threads=1, seed=5, action_form="flat"
    )
    actions = planner.plan(z_context, z_goal, predictor, previous)
    return {"actions": actions.numpy(), "cost": np.asarray(planner.last_result.cost)}


def make_spec(**fields):
    """An `ActionSpec`."""
    return ActionSpec(**fields)


def make_schedule(**fields):
    """A `NoiseSchedule`."""
    return dataclasses.replace(ORIGINAL_SCHEDULE, **fields)  # the default when this was recorded


def bundle_fields():
    """All that the shipped bundle's manifest says, as the reader understands it."""
    bundle = read_bundle(SHIPPED.bundle)
    return {
        "action_spec": bundle.action_spec.to_dict(),
        "schedule": bundle.schedule.to_dict(),
        "condition": bundle.condition.to_dict(),
        "graphs": dict(bundle.graphs),
        "parity": dict(bundle.parity),
        "provenance": dict(bundle.provenance),
        "ranker": RANKER if RANKER in bundle.graphs else None,
    }


def defaults():
    """The default of every setting: of planning, of training, and of what is trained."""
    chain = inspect.signature(DDIMOptimizer).parameters["on_failure"].default
    steps = SearchSettings().steps(NoiseSchedule())  # of a model that recommends none
    found = {"DDIMOptimizer": {**SearchSettings().to_dict(), "on_failure": chain}}
    found["DDIMOptimizer"]["num_inference_steps"] = steps
    for name, each in SETTINGS.items():
        instance = ORIGINAL_SCHEDULE if each is NoiseSchedule else each()  # as it was recorded
        found[name] = instance.to_dict()
    full, small = AssetSettings(), AssetSettings.small()
    found["shipped"], found["small"] = dataclasses.asdict(full), dataclasses.asdict(small)
    return found


# Training.

LENGTH = 20  # actions a sequence
TINY_MODEL = {"d_model": 16, "num_layers": 1, "nhead": 2, "dim_feedforward": 32}
TINY_TRAINING = {"batch_size": 4, "lr": 1e-3, "num_validation": 4, "wandb_mode": "disabled"}
NUM_GESTURES, STEPS_PER_EPOCH = 24, 6


class _Stop(KeyboardInterrupt):
    pass


def make_gestures(num, seed=0):
    """float32 `[num, LENGTH, 3]`."""
    return generate_gestures(
        num,
        kind="mixed",
        min_duration_share=0.25,
        max_duration_share=0.5,
        sequence_length=LENGTH,
        rng=np.random.default_rng(seed),
    )


def write_tiny_data(folder, condition):
    """Training data: gestures, or trajectories of latents and gestures."""
    gestures = make_gestures(NUM_GESTURES)
    if condition != "latents":
        folder.mkdir(parents=True)
        np.save(folder / "batch_000000_actions.npy", gestures.reshape(-1, 3))
        return folder
    embeddings = np.random.default_rng(1).normal(size=(NUM_GESTURES // 2 + 4, 3, 9, 5))
    actions = np.concatenate([gestures, make_gestures(8, seed=2)]).reshape(-1, 2, LENGTH, 3)
    splits = {"train": range(NUM_GESTURES // 2), "validation": range(12, 16)}
    write_trajectories_h5(
        folder, embeddings.astype(np.float32), actions, splits, layer_normed=False
    )
    return folder


def train_tiny(root, condition, name="run", *, num_epochs=1, stop_after=None, resume=False):
    """Train a tiny denoiser with the function behind `vj2-ddim train`.

    Args:
        root: Holds the data, which are made if they are not there, and the run.
        condition: `none`, `sketch` or `latents`; `minimal` is the original's architecture.
        name: The run's folder.
        num_epochs: Of six steps each.
        stop_after: The step after which the user presses Ctrl-C.
        resume: Go on with a run that was stopped.

    Returns:
        `losses` since the last epoch's end, `weights`, `averaged` weights, `metrics`, and the
        model.
    """
    one_thread()
    minimal = condition == "minimal"
    data = root / "data"
    if not data.exists():
        write_tiny_data(data, condition)
    settings = RunSettings(
        data_dir=data,
        val_data_dir=data,
        save_dir=root / name,
        model=ModelConfig(
            architecture="minimal" if minimal else "dit",
            condition="none" if minimal else condition,
            condition_layers=1,
            condition_tokens=3,
            **TINY_MODEL,
        ),
        training=TrainingConfig(num_epochs=num_epochs, device="cpu", **TINY_TRAINING),
        schedule=ORIGINAL_SCHEDULE
        if minimal
        else NoiseSchedule(
            beta_schedule="cosine", prediction_type="v_prediction", timestep_spacing="trailing"
        ),
        representation="raw" if minimal else "auto",
        displacement_scale=1.0,
        sequence_length=LENGTH,
        resume=resume,
    )

    def progress(done, total, line):
        if done == stop_after:
            raise _Stop

    try:
        train_run(settings, progress)
    except _Stop:
        assert stop_after is not None
    saved = load_checkpoint(root / name / "checkpoint.pt")
    metrics = root / name / "metrics.jsonl"
    return {
        "step": saved.training["step"],
        "losses": np.array(saved.training["losses"]),
        "weights": {name: weight.numpy() for name, weight in saved.weights.items()},
        "averaged": {name: weight.numpy() for name, weight in saved.model.state_dict().items()},
        "metrics": [json.loads(line) for line in metrics.read_text().splitlines()]
        if metrics.exists()
        else [],
        "model": saved.model,
        "data": data,
    }


def train_tiny_ranker(model, data):
    """A ranker of a tiny sketch-conditional model; the cost is how far it is from the sketch."""
    one_thread()
    config = RankerConfig(
        width=16, num_layers=1, nhead=2, num_queries=2, num_problems=16, num_sampled=2,
        num_perturbed=2, num_random=1, num_inference_steps=2, num_epochs=2, batch_size=4,
        held_out_share=0.25,
    )  # fmt: skip

    def cost(context, candidates):
        first = np.argmax(candidates[..., 2] > 0.5, axis=-1)[..., None, None]
        touched = np.take_along_axis(candidates[..., :2], first, axis=-2)[..., 0, :]
        return np.linalg.norm(touched - context["sketch"][:, None, :2], axis=-1) + 0.01

    examples = open_examples(data, model.action_spec, "sketch", "train")
    trained = train_ranker(model, examples, cost, config)
    weights = {name: weight.numpy() for name, weight in trained.ranker.state_dict().items()}
    return weights, dict(trained.metrics)


def train_tiny_amortised(kind, model, data, out):
    """The regression or the Gaussian, on the data of a tiny latents-conditional model."""
    one_thread()
    examples = open_examples(data, model.action_spec, "latents", "train")
    config = ModelConfig(condition="latents", condition_layers=1, condition_tokens=3, **TINY_MODEL)
    training = TrainingConfig(num_epochs=1, batch_size=5, lr=1e-3, device="cpu")
    trained = train_amortised(kind, examples, config, training, out)
    losses = torch.load(out, weights_only=True)["provenance"]["loss_by_epoch"]
    return {name: weight.numpy() for name, weight in trained.state_dict().items()}, losses


def train_tiny_world_model(out):
    """Collected, encoded, trained, measured."""
    one_thread()
    config = WorldModelConfig(
        num_trajectories=20, horizon=2, width=16, num_layers=1, num_heads=2, token_dim=8,
        num_epochs=1, batch_size=8, unchanged_share=1.0, num_report_problems=3, seed=2,
    )  # fmt: skip
    model = train_world_model(config, out)
    weights = {name: weight.numpy() for name, weight in model.state_dict().items()}
    return weights, model.provenance["loss_by_epoch"], model.report


# The benchmark.


def make_problems(num, split, seed):
    """Pictures of screens and of goals uint8 `[num, H, W, 3]`, gestures, and kinds of widgets."""
    problems = one_gesture_problems(num, split=split, seed=seed)
    kinds = [str(kind) for kind in problems.kind]
    return problems.start.render(), problems.goal.render(), problems.actions, kinds


def encode(frames):
    """Latents of pictures by the shipped world model."""
    one_thread()
    return WorldModel.load(SHIPPED.world_model).encode(frames)


def predict(state, goal, actions):
    """What the shipped world model says of a gesture for each pair of latents.

    Returns:
        The next latents, and the cost of every gesture for every pair.
    """
    one_thread()
    model = WorldModel.load(SHIPPED.world_model)
    with torch.no_grad():
        after = model.predictor(torch.tensor(state)[:, None], torch.tensor(actions)[:, None])
    candidates = np.broadcast_to(actions, (len(state), *actions.shape))
    return after[:, 0].numpy(), LatentCost(model, state, goal)(np.ascontiguousarray(candidates))


def touch_screens(split, seed, num=3, num_touches=3):
    """Screens, touched again and again by the policy that collects data.

    Returns:
        Pictures `[T, num, H, W, 3]`, states `[T, num, S]` and gestures `[T-1, num, 250, 3]`.
    """
    screens = TouchScreen.generate(num, split=split, seed=seed)
    rng = np.random.default_rng(seed)
    pictures, states, gestures = [screens.render()], [screens.state], []
    for _ in range(num_touches):
        gestures.append(mixed_policy(screens, 0.8, rng))
        screens = screens.execute(gestures[-1])
        pictures.append(screens.render())
        states.append(screens.state)
    return np.stack(pictures), np.stack(states), np.stack(gestures)


def registry():
    """Of every planner its tuned settings and the rest that its line says of it."""
    return {
        entry.name: {
            "tuned": read_tuned(TUNED_DIR, entry),
            "search_space": {name: list(values) for name, values in entry.search_space.items()},
            "with_cost": entry.with_cost,
            "in_quick": entry.in_quick,
            "needs_latents": "latents" in entry.needs,
            "unprojected": entry.unprojected is not None,
        }
        for entry in REGISTRY
    }


def write_tiny_latents(folder, num_trajectories=24):
    """The retrieval's memory: few transitions of training screens."""
    one_thread()
    settings = dataclasses.replace(AssetSettings(), num_trajectories=num_trajectories)
    latents, actions = collect_latents(WorldModel.load(SHIPPED.world_model), settings, "train")
    splits = {"train": range(len(actions))}
    write_trajectories_h5(folder, latents, actions, splits, layer_normed=False)
    return latents, actions


def run_small_benchmark(out, latents, planners, chain_planners, *, num_problems, num_chains):
    """The race and the chains with all that is shipped, without a deadline.

    Returns:
        The summary's rows, the chains' rows, and the raw results of both.
    """
    one_thread()
    settings = RaceSettings(
        num_problems=num_problems,
        chains=num_chains,
        split="test",
        seed=4,  # of no ties between kinds of widgets, which sort differently on other processors
        threads=1,
        latents=latents,
    )
    benchmark = Benchmark(SHIPPED.fill(settings), out)
    pictures = ("draw_pictures", "animate_record")  # half of the time, and no result
    with patch.multiple(benchmark_module, **dict.fromkeys(pictures, lambda *_, **__: None)):
        rows = benchmark.race(planners_of(planners))
        chain_rows = benchmark.go_through_chains(planners_of(chain_planners))
    results, chains = (
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in (out / "results.jsonl", out / "chains" / "results.jsonl")
    )
    return rows, chain_rows, results, chains

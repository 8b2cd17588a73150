"""`vj2-ddim inspect`, `plan`, `doctor` and `adapters`: what needs no torch, only the extra `cli`."""

from __future__ import annotations

import os
import platform
import time
import zipfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer

from vj2_ddim_plugin.adapters import FoundAdapter, find_adapters
from vj2_ddim_plugin.bundle import Bundle, read_bundle
from vj2_ddim_plugin.cli.console import print_table, say
from vj2_ddim_plugin.cli.options import options
from vj2_ddim_plugin.errors import ConfigError, ContextError, ProviderError
from vj2_ddim_plugin.files import atomic_path, write_json
from vj2_ddim_plugin.interface import FloatArray, PlanningProblem
from vj2_ddim_plugin.model import BundleModel
from vj2_ddim_plugin.onnx import PROVIDERS, TF32_OVERRIDE, SessionSettings
from vj2_ddim_plugin.onnx.session import OnnxGraph, available_providers, why_not
from vj2_ddim_plugin.optimizer import DDIMOptimizer
from vj2_ddim_plugin.planning import SearchSettings

__all__ = ["EXTRAS", "RUNS", "adapters", "doctor", "examine", "inspect", "plan", "time_one_plan"]

CONDITIONS = "An .npz with the bundle's context arrays, [B, ...] each; none if unconditional."
PLAN_FILE = Path("plan.npy")
Folder = Annotated[Path, typer.Argument(help="A bundle's folder.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write it as JSON.")]
EXTRAS = {
    "cli": ("typer", "rich", "matplotlib"),
    "train": ("torch", "wandb", "scipy", "h5py", "filelock"),
    "export": ("torch", "onnx", "onnxscript"),
}
RUNS = "runs"
WHEELS = ("onnxruntime-gpu", "onnxruntime", "onnxruntime-directml", "onnxruntime-openvino")
VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH")
WARM_PLANS = 20
# An ONNX model of opset 13, written out: y = x + x, both float32 [2].
TINY_GRAPH = (
    b"\x08\x08\x12\x00:5\n\x0e\n\x01x\n\x01x\x12\x01y\x22\x03Add\x12\x01gZ\x0f\n\x01x\x12\n\n\x08"
    b"\x08\x01\x12\x04\n\x02\x08\x02b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x02B\x04\n"
    b"\x00\x10\r"
)


@options
def inspect(bundle: Folder, session: SessionSettings, json_file: JsonFile = None) -> None:
    """Say all there is to know about a bundle: what it samples, from what, and how exactly."""
    read = read_bundle(bundle)
    with BundleModel(read, session) as model:
        description = {**_describe(read), "runs on": model.provider}
    print_table(list(description.items()), title=str(bundle))
    if json_file is not None:
        write_json(json_file, description)


def _describe(bundle: Bundle) -> dict[str, object]:
    spec, schedule, condition = bundle.action_spec, bundle.schedule, bundle.condition
    sizes = {name: (bundle.folder / name).stat().st_size for name in bundle.graphs}
    inputs = {name: list(shape) for name, shape in condition.inputs.items()}
    return {
        "actions": f"[{spec.length}, {spec.num_channels}] ({', '.join(spec.channels)}), "
        f"{spec.horizon} block(s) of {spec.action_block} at {spec.rate_hz:g} Hz",
        "bounds": f"{spec.action_low} to {spec.action_high}",
        "press": f"{spec.press_channel}, {spec.min_press_steps} to {spec.longest_press} steps, "
        f"path of {spec.path_knots} knots",
        "representation": f"{spec.representation}, diffused as {list(spec.diffused_shape)}",
        "condition": f"{condition.kind} {inputs or ''}",
        "schedule": f"{schedule.beta_schedule}, {schedule.num_train_timesteps} timesteps, predicts "
        f"{schedule.prediction_type}, spacing {schedule.timestep_spacing}",
        "graphs": {
            name: f"{sizes[name]:,} bytes, sha256 {digest}"
            for name, digest in bundle.graphs.items()
        },
        "parity": dict(bundle.parity),
        "provenance": dict(bundle.provenance),
    }


@options
def plan(
    bundle: Folder,
    search: SearchSettings,
    session: SessionSettings,
    conditions: Annotated[Path | None, typer.Option(help=CONDITIONS)] = None,
    out: Annotated[Path, typer.Option(help="The actions' file, an .npy [B, L, A].")] = PLAN_FILE,
    picture: Annotated[Path | None, typer.Option(help="Also draw the plans.")] = None,
    num_plans: Annotated[int, typer.Option(help="B, for an unconditional bundle.")] = 1,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Also write counts and times.")
    ] = None,
) -> None:
    """Sample one plan a condition. There is no world model here, so no cost ranks the plans."""
    optimizer = DDIMOptimizer.from_bundle(bundle, search, session=session)
    inputs = optimizer.model.condition.inputs
    if inputs and conditions is None:
        shapes = ", ".join(f"{name} [B, {', '.join(map(str, inputs[name]))}]" for name in inputs)
        raise ContextError(f"{bundle} plans from a condition: give {shapes} with --conditions")
    context = {} if conditions is None else _read_conditions(conditions)
    result = optimizer.optimize(PlanningProblem(context, batch_size=None if context else num_plans))
    with atomic_path(out) as temporary, open(temporary, "wb") as stream:
        np.save(stream, result.actions)
    if picture is not None:
        from vj2_ddim_plugin.cli.pictures import plot_plan, save_figure  # matplotlib loads slowly

        save_figure(plot_plan(result.actions, optimizer.action_spec), picture)
    milliseconds = {name: 1e3 * seconds for name, seconds in result.wall_time_s.items()}
    if json_file is not None:
        summary = {
            "plans": len(result.actions),
            "provider": result.provider,
            "wall_time_ms": milliseconds,
            "num_denoiser_evaluations": result.num_denoiser_evaluations,
            "projection_distance": result.projection_distance.tolist(),
        }
        write_json(json_file, summary)
    say(
        f"{len(result.actions)} plans {result.actions.shape[1:]} in {milliseconds['total']:.1f} ms "
        f"on {result.provider}, written to {out}"
    )


def _read_conditions(path: Path) -> dict[str, FloatArray]:
    try:
        with open(path, "rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array without a name")
            with archive:
                return dict(archive)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ContextError(
            f"{path}: cannot be read as an .npz of condition arrays ({error}). Write it with "
            f"numpy.savez(path, name=array, ...)"
        ) from error


@options
def doctor(
    session: SessionSettings,
    bundle: Annotated[Path | None, typer.Option(help="Time one plan of this bundle.")] = None,
    require: Annotated[
        list[str] | None, typer.Option(help="Fail unless this provider runs; may be repeated.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Say what this machine can do: which providers really run, and why the others do not."""
    unknown = sorted(set(require or ()) - set(PROVIDERS))
    if unknown:
        raise ConfigError(f"require {unknown[0]!r} is unknown; use one of {', '.join(PROVIDERS)}")
    findings = examine()
    _show(findings)
    if bundle is not None:  # after the rest: what is wrong with a bundle may be read off it
        findings["bundle"] = time_one_plan(bundle, session)
        _show({"bundle": findings["bundle"]})
    if json_file is not None:
        write_json(json_file, findings)
    for name in require or ():
        if findings["providers"][name] != RUNS:
            raise ProviderError(f"require={name!r}: it {findings['providers'][name]}")


def _show(findings: dict[str, Any]) -> None:
    """A section a row, a finding a line."""
    rows = []
    for section, found in findings.items():
        if isinstance(found, dict):
            found = "\n".join(f"{name}: {value}" for name, value in found.items())
        rows.append((section, found))
    print_table(rows, lines=True)


def examine() -> dict[str, Any]:
    """Sections of findings about this machine and this installation, ready for JSON."""
    missing = {name: [each for each in EXTRAS[name] if find_spec(each) is None] for name in EXTRAS}
    processor: dict[str, Any] = {"machine": f"{platform.system()} {platform.machine()}"}
    processor["cores"] = os.cpu_count()
    if hasattr(os, "sched_getaffinity"):
        processor["cores of this process"] = len(os.sched_getaffinity(0))
    if hasattr(os, "getloadavg"):
        processor["load of 1, 5, 15 minutes"] = [round(load, 2) for load in os.getloadavg()]
    return {
        "versions": {
            "vj2-ddim-plugin": _version("vj2-ddim-plugin"),
            "vj2-ddim-benchmark": _version("vj2-ddim-benchmark") or "not installed",
            "python": platform.python_version(),
            "numpy": np.__version__,
            **{wheel: found for wheel in WHEELS if (found := _version(wheel))},
        },
        "built in": available_providers(),
        "providers": {name: _whether_it_runs(name) for name in PROVIDERS},
        "auto takes": OnnxGraph(TINY_GRAPH).provider,
        "TF32": {
            "cuda": "off unless allow_tf32",
            "tensorrt": f"refused unless allow_tf32 or {TF32_OVERRIDE}=0",
        },
        "processor": processor,
        "environment": {
            name: os.environ.get(name, "not set") for name in (*VARIABLES, TF32_OVERRIDE)
        },
        "extras": {
            name: f"lacks {', '.join(lacks)}" if lacks else "installed"
            for name, lacks in missing.items()
        },
    }


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _whether_it_runs(provider: str) -> str:
    """Make a session of it and run it; nothing less tells."""
    if provider != "cpu" and (reason := why_not(provider)):
        return f"does not run: {reason}"
    try:
        with OnnxGraph(TINY_GRAPH, SessionSettings(provider=provider, allow_tf32=True)) as graph:
            (doubled,) = graph.run({"x": np.ones(2, np.float32)})
    except ProviderError as error:
        return f"does not run: {error}"
    return RUNS if doubled.tolist() == [2.0, 2.0] else f"computes 1 + 1 = {doubled.tolist()}"


def time_one_plan(bundle: Path | str, session: SessionSettings | None = None) -> dict[str, Any]:
    """Load a bundle, plan a first time and then warm, for one problem and without a cost."""
    started = time.perf_counter()
    with BundleModel(bundle, session or SessionSettings()) as model:
        loaded, optimizer = time.perf_counter(), DDIMOptimizer(model)
        shapes = model.condition.inputs.items()
        context = {name: np.zeros((1, *shape), np.float32) for name, shape in shapes}
        times = [time.perf_counter()]
        for _ in range(1 + WARM_PLANS):
            optimizer.optimize(PlanningProblem(context, batch_size=1))
            times.append(time.perf_counter())
        seconds = np.diff(times).tolist()
        return {
            "folder": str(bundle),
            "runs on": model.provider,
            "steps": optimizer.settings.num_inference_steps,
            "load_s": round(loaded - started, 4),
            "first_plan_s": round(seconds[0], 5),
            "warm_plan_s": round(median(seconds[1:]), 5),
        }


def adapters(json_file: JsonFile = None) -> None:
    """List the adapters: host, units, what they replace, and whether they can run here."""
    rows = {name: _row(found) for name, found in find_adapters().items()}
    columns = ("host", "units", "target", "here")
    cells = [(name, *(row[column] for column in columns)) for name, row in rows.items()]
    print_table(cells, ("name", *columns), title="adapters")
    if json_file is not None:
        write_json(json_file, rows)


def _row(found: FoundAdapter) -> dict[str, str]:
    """What is said of one adapter, all of it text."""
    names, adapter = ("host", "replaces", "units", "usage", "target"), found.adapter
    if adapter is None:
        texts = dict.fromkeys(names, "")
        return {**texts, "target": found.value, "here": f"broken: {found.error}"}
    here = "yes" if adapter.host_is_here else f"yes, without {adapter.package}"
    if adapter.missing:
        here = f"needs {', '.join(adapter.missing)}"
    return {**{name: getattr(adapter, name) for name in names}, "here": here}

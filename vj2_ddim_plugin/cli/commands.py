"""`vj2-ddim inspect`, `plan`, `serve`, `doctor`, `adapters`: what needs no torch.

Numpy and ONNX Runtime are imported when work begins: help and usage errors come at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vj2_ddim_plugin.cli.console import print_findings, print_table, say
from vj2_ddim_plugin.cli.options import options
from vj2_ddim_plugin.errors import ConfigError, ContextError, ProviderError
from vj2_ddim_plugin.files import atomic_path, write_json
from vj2_ddim_plugin.onnx import PROVIDERS, SessionSettings
from vj2_ddim_plugin.planning import SearchSettings
from vj2_ddim_plugin.serving import ServeSettings

if TYPE_CHECKING:
    from vj2_ddim_plugin.adapters import FoundAdapter
    from vj2_ddim_plugin.bundle import Bundle
    from vj2_ddim_plugin.interface import FloatArray, PlanResult

__all__ = ["adapters", "doctor", "inspect", "plan", "serve"]

CONDITIONS = "An .npz with the bundle's context arrays, [B, ...] each; none if unconditional."
PLAN_FILE = Path("plan.npy")
Folder = Annotated[Path, typer.Argument(help="A bundle's folder.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write it as JSON.")]


@options
def inspect(bundle: Folder, session: SessionSettings, json_file: JsonFile = None) -> None:
    """Say all there is to know about a bundle: what it samples, from what, and how exactly."""
    from vj2_ddim_plugin.bundle import read_bundle
    from vj2_ddim_plugin.model import BundleModel

    read = read_bundle(bundle)
    with BundleModel(read, session) as model:
        description = {**_describe(read), "runs on": model.provider}
    print_findings(description, title=str(bundle))
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
        f"{schedule.prediction_type}, spacing {schedule.timestep_spacing}, "
        f"{schedule.num_inference_steps} steps unless told",
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
    import numpy as np

    from vj2_ddim_plugin.interface import PlanningProblem
    from vj2_ddim_plugin.optimizer import DDIMOptimizer

    if picture is not None:
        from vj2_ddim_plugin.cli.pictures import plot_plan, require_picture, save_figure

        require_picture(picture)
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
        save_figure(plot_plan(result.actions, optimizer.action_spec), picture)
    write_json(json_file, _summary(result))
    say(
        f"{len(result.actions)} plans {result.actions.shape[1:]} in "
        f"{1e3 * result.wall_time_s['total']:.1f} ms on {result.provider}, written to {out}"
    )


def _summary(result: PlanResult) -> dict[str, object]:
    """Counts and times, as plain values."""
    return {
        "plans": len(result.actions),
        "provider": result.provider,
        "wall_time_ms": {name: 1e3 * seconds for name, seconds in result.wall_time_s.items()},
        "num_denoiser_evaluations": result.num_denoiser_evaluations,
        "projection_distance": result.projection_distance.tolist(),
    }


def _read_conditions(path: Path) -> dict[str, FloatArray]:
    from vj2_ddim_plugin.arrays import npz_arrays

    return {name: array.open() for name, array in npz_arrays(path, ContextError).items()}


@options
def serve(bundle: Folder, settings: ServeSettings, session: SessionSettings) -> None:
    """Serve a bundle to many planners by the Open Inference Protocol, until Ctrl-C."""
    token = settings.read_token()
    from vj2_ddim_plugin.serving.server import serve_bundle

    def ready(address: str) -> None:
        say(f"serving at {address}; Ctrl-C stops it")
        if settings.host not in ("127.0.0.1", "::1", "localhost") and not token:
            say(f"anyone who reaches {settings.host} may ask: no token is set", error=True)

    serve_bundle(bundle, settings, session, ready)
    say("stopped")


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
    from vj2_ddim_plugin.cli.doctor import RUNS, examine, time_one_plan

    unknown = sorted(set(require or ()) - set(PROVIDERS))
    if unknown:
        raise ConfigError(f"require {unknown[0]!r} is unknown; use one of {', '.join(PROVIDERS)}")
    findings = examine()
    print_findings(findings)
    if bundle is not None:  # after the rest: what is wrong with a bundle may be read off it
        findings["bundle"] = time_one_plan(bundle, session)
        print_findings({"bundle": findings["bundle"]})
    write_json(json_file, findings)
    for name in require or ():
        if findings["providers"][name] != RUNS:
            raise ProviderError(f"require={name!r}: it {findings['providers'][name]}")


def adapters(json_file: JsonFile = None) -> None:
    """List the adapters: host, units, what they replace, and whether they can run here."""
    from vj2_ddim_plugin.adapters import find_adapters

    rows = {name: _row(found) for name, found in find_adapters().items()}
    columns = ("host", "units", "target", "here")
    cells = [(name, *(row[column] for column in columns)) for name, row in rows.items()]
    print_table(cells, ("name", *columns), title="adapters")
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

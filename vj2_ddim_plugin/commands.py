"""`vj2-ddim inspect` and `vj2-ddim doctor`: what a bundle holds and a machine can do, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vj2_ddim_plugin.bundle import Bundle, read_bundle
from vj2_ddim_plugin.doctor import RUNS, examine, time_one_plan
from vj2_ddim_plugin.engine.providers import PROVIDERS
from vj2_ddim_plugin.errors import ConfigError, ProviderError
from vj2_ddim_plugin.files import write_json
from vj2_ddim_plugin.model import BundleModel

__all__ = ["doctor", "inspect"]

console = Console()


def inspect(
    bundle: Annotated[Path, typer.Argument(help="A bundle's folder.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write it as JSON.")] = None,
) -> None:
    """Say all there is to know about a bundle: what it samples, from what, and how exactly."""
    read = read_bundle(bundle)
    model = BundleModel(read, "auto")
    description = {**_describe(read), "runs on": model.provider}
    table = Table(title=str(bundle), title_justify="left", show_header=False)
    for name, value in description.items():
        table.add_row(name, str(value))
    console.print(table)
    if json_file is not None:
        write_json(json_file, description)


def doctor(
    bundle: Annotated[Path | None, typer.Option(help="Time one plan of this bundle.")] = None,
    require: Annotated[
        list[str] | None, typer.Option(help="Fail unless this provider runs; may be repeated.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write it as JSON.")] = None,
) -> None:
    """Say what this machine can do: which providers really run, and why the others do not."""
    unknown = sorted(set(require or ()) - set(PROVIDERS))
    if unknown:
        raise ConfigError(f"--require {unknown[0]} is unknown; use one of {', '.join(PROVIDERS)}")
    findings = examine()
    _show(findings)
    if bundle is not None:  # after the rest: what is wrong with a bundle may be read off it
        findings["bundle"] = time_one_plan(bundle)
        _show({"bundle": findings["bundle"]})
    if json_file is not None:
        write_json(json_file, findings)
    for name in require or ():
        if findings["providers"][name] != RUNS:
            raise ProviderError(f"--require {name}: it {findings['providers'][name]}")


def _show(findings: Mapping[str, Any]) -> None:
    table = Table(show_header=False, show_lines=True)
    for section, value in findings.items():
        lines = value.items() if isinstance(value, dict) else [("", value)]
        text = Text("\n".join(f"{name}: {found}" if name else f"{found}" for name, found in lines))
        table.add_row(section, text)
    console.print(table)


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

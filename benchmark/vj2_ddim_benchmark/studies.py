"""What is studied beside the race: one thing changed at a time, everything else as it was.

`RUN/studies/STUDY/` is a race's folder, whose planners are named SERIES@VALUE.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.settings import Settings, setting

if TYPE_CHECKING:
    from vj2_ddim_benchmark.planners.description import Planner

STUDIES_DIR = "studies"
SEPARATOR = "@"
OWN = "own"  # the race's own world model, or denoiser
STEPS = (1, 2, 4, 8, 10, 16, 50)
CANDIDATES = (1, 4, 16, 64)
GOAL_NOISE = (0.0, 0.1, 0.2, 0.5)
RANKED, SINGLE = "ddim-16", "ddim-1"
DEFAULT_PLANNERS = (RANKED, SINGLE, "gradient-descent-adam-10", "gesture-cem-8x16")


@dataclass(frozen=True)
class Study:
    """What the report says of a study."""

    name: str
    title: str
    axis: str  # what is changed, with its unit
    meaning: str
    log: bool = False  # whether the values are shown on a logarithmic axis


STUDIES: Mapping[str, Study] = {
    name: Study(name, *words)
    for name, *words in (
        ("steps", "Success against denoiser steps", "num_inference_steps",
         "The same denoiser sampled in fewer or more DDIM steps.", True),
        ("candidates", "Success against candidates", "candidates",
         "K samples ranked by the planner's cost; a single one is not ranked.", True),
        ("goal-noise", "Noise on the goal", "noise std / latents' std",
         "Gaussian noise on the goal's latents, in units of their own std, the same for all "
         "planners; what they condition on and the cost both hold it. The final cost is that of "
         "the true goal."),
        ("world-model", "Other world models", "world model",
         "The planner encodes with and plans through another world model; the final cost is that "
         "of the race's own (own)."),
        ("denoisers", "Other denoisers", "denoiser",
         "Denoisers of other data or another representation, which may have been trained for "
         "longer or shorter, and the race's own (own)."),
    )
}  # fmt: skip


@dataclass(frozen=True)
class StudySettings(Settings):
    """Which studies, and what they need besides the race."""

    study: tuple[str, ...] = setting((), f"Also study, with commas between: {', '.join(STUDIES)}.")
    study_planners: tuple[str, ...] = setting(
        DEFAULT_PLANNERS, "Whose goals are blurred, and whose world models are changed."
    )
    study_problems: int | None = setting(
        None, "The first so many problems; all unless told.", low=1
    )
    study_world_model: tuple[str, ...] = setting(
        (), "NAME=FILE, with commas between: others, for the study world-model."
    )
    study_bundle: tuple[str, ...] = setting(
        (), "NAME=DIR, with commas between: other denoisers, for the study denoisers."
    )

    def check(self) -> None:
        """Names that are not known, and files without a name."""
        _planners(self.study_planners)
        self.world_models, self.bundles  # noqa: B018

    @property
    def world_models(self) -> dict[str, Path]:
        """Files of other world models, by what they are called."""
        return _named_paths("study_world_model", "FILE", self.study_world_model)

    @property
    def bundles(self) -> dict[str, Path]:
        """Other denoisers, likewise."""
        return _named_paths("study_bundle", "DIR", self.study_bundle)

    def variants(self, study: str) -> "tuple[Planner, ...]":
        """Who takes part in a study, with the planners as they are first or last."""
        if study not in STUDIES:
            raise ConfigError(f"study {study!r} is unknown; use one of {', '.join(STUDIES)}")
        varied: dict[str, tuple[str, Mapping[str, Any]]] = {
            "steps": ("num_inference_steps", {f"{num}": num for num in STEPS}),
            "candidates": ("num_candidates", {f"{num}": num for num in CANDIDATES}),
            "goal-noise": ("goal_noise", {f"{std:g}": std for std in GOAL_NOISE}),
            "world-model": ("world_model", {OWN: None, **self.world_models}),
            "denoisers": ("bundle", {**self.bundles, OWN: None}),
        }
        field, values = varied[study]
        if set(values) == {OWN}:
            lacking = {
                "world_model": "world models; give each as study_world_model='NAME=FILE'",
                "bundle": "bundles; give each as study_bundle='NAME=DIR'",
            }
            raise ConfigError(f"the study {study} needs other {lacking[field]}")
        series = {name: name for name in (RANKED, SINGLE)}
        if study == "candidates":
            series = {RANKED: "ddim"}
        elif study in ("goal-noise", "world-model"):
            series = {name: name for name in self.study_planners}
        rows = {planner.name: planner for planner in _planners(list(series))}
        return tuple(
            _changed(rows[row], f"{name}@{label}", field, value)
            for row, name in series.items()
            for label, value in values.items()
        )


def _planners(names: Sequence[str]) -> "tuple[Planner, ...]":
    from vj2_ddim_benchmark.planners.registry import planners_of  # all that they need loads slowly

    return tuple(planners_of(names))


def split_name(planner: str) -> tuple[str, str]:
    """The series and the value in a variant's name."""
    series, _, value = planner.rpartition(SEPARATOR)
    return series, value


def _named_paths(option: str, what: str, given: Sequence[str]) -> dict[str, Path]:
    """Words of the form `NAME=PATH`, by name."""
    named: dict[str, Path] = {}
    for words in given:
        name, equals, path = words.partition("=")
        if not name or not equals or not path:
            raise ConfigError(f"{option} must be NAME={what}; found {words!r}")
        if name in named or name == OWN or SEPARATOR in name:
            raise ConfigError(
                f"{option}: a NAME must be given once, must not be {OWN!r} (the race's) and not "
                f"hold {SEPARATOR!r}; found {words!r}"
            )
        named[name] = Path(path)
    return named


def _changed(planner: "Planner", name: str, field: str, value: Any) -> "Planner":  # noqa: ANN401
    """A variant; a sampler with other settings is ranked unless it draws a single candidate."""
    if not field.startswith("num_"):
        return planner.variant(name, **{field: value})
    fixed = {**planner.fixed, field: value}
    return planner.variant(name, fixed=fixed, with_cost=fixed["num_candidates"] > 1)

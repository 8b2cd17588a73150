"""What is studied beside the race: one thing changed at a time, everything else as it was.

```
RUN/studies/
└── steps/            a study
    ├── run.json
    ├── cold.json
    └── results.jsonl     as the race's, planners named SERIES@VALUE
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vj2_ddim_benchmark.protocol.variants import Variant
from vj2_ddim_plugin.errors import ConfigError

__all__ = [
    "DEFAULT_PLANNERS",
    "OWN",
    "SEPARATOR",
    "STUDIES",
    "STUDIES_DIR",
    "Study",
    "StudySettings",
    "split_name",
    "studies_of",
]

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
    """What the report says of a study.

    Attributes:
        name: Of the study and its folder.
        title: Heading in the report.
        axis: What is changed, with its unit.
        meaning: What the tables show.
        log: Whether the values are shown on a logarithmic axis.
    """

    name: str
    title: str
    axis: str
    meaning: str
    log: bool = False


STUDIES: Mapping[str, Study] = {
    study.name: study
    for study in (
        Study(
            "steps",
            "Success against denoiser steps",
            "num_inference_steps",
            "The same denoiser sampled in fewer or more DDIM steps.",
            log=True,
        ),
        Study(
            "candidates",
            "Success against candidates",
            "candidates",
            "K samples ranked by the planner's cost; a single one is not ranked.",
            log=True,
        ),
        Study(
            "goal-noise",
            "Noise on the goal",
            "noise std / latents' std",
            "Gaussian noise on the goal's latents, in units of their own std, the same for all "
            "planners; what they condition on and the cost both hold it. The final cost is that "
            "of the true goal.",
        ),
        Study(
            "world-model",
            "Other world models",
            "world model",
            "The planner encodes with and plans through another world model; the final cost is "
            "that of the race's own (own).",
        ),
        Study(
            "denoisers",
            "Other denoisers",
            "denoiser",
            "Denoisers of other data or another representation, which may have been trained for "
            "longer or shorter, and the race's own (own).",
        ),
    )
}


@dataclass(frozen=True)
class StudySettings:
    """What the studies need besides the race.

    Attributes:
        planners: Lines of the registry that goals are blurred and the world model is changed for.
        world_models: Files of other world models, by what they are called.
        bundles: Other denoisers, likewise.
    """

    planners: tuple[str, ...] = DEFAULT_PLANNERS
    world_models: Mapping[str, Path] = field(default_factory=dict)
    bundles: Mapping[str, Path] = field(default_factory=dict)

    def variants(self, study: str) -> tuple[Variant, ...]:
        """Who takes part in a study, first the planners as they are.

        Raises:
            ConfigError: The study is unknown, or something it needs is not given.
        """
        if study not in STUDIES:
            raise ConfigError(f"study {study!r} is unknown; use one of {', '.join(STUDIES)}")
        makers = {
            "steps": _steps,
            "candidates": _candidates,
            "goal-noise": self._goal_noise,
            "world-model": self._world_model,
            "denoisers": self._denoisers,
        }
        return makers[study]()

    def _goal_noise(self) -> tuple[Variant, ...]:
        return tuple(
            Variant(_name(planner, f"{std:g}"), planner, goal_noise=std)
            for planner in self.planners
            for std in GOAL_NOISE
        )

    def _world_model(self) -> tuple[Variant, ...]:
        if not self.world_models:
            raise ConfigError("the study world-model needs other world models; give each with "
                              "--study-world-model NAME=FILE")  # fmt: skip
        return tuple(
            Variant(_name(planner, value), planner, world_model=path)
            for planner in self.planners
            for value, path in ((OWN, None), *self.world_models.items())
        )

    def _denoisers(self) -> tuple[Variant, ...]:
        if not self.bundles:
            raise ConfigError("the study denoisers needs other bundles; give each with "
                              "--study-bundle NAME=DIR")  # fmt: skip
        return tuple(
            Variant(_name(planner, value), planner, bundle=path)
            for planner in (RANKED, SINGLE)
            for value, path in (*self.bundles.items(), (OWN, None))
        )


def studies_of(names: Sequence[str]) -> list[Study]:
    """The studies of these names, in the report's order; unknown names are left out."""
    return [study for name, study in STUDIES.items() if name in names]


def split_name(planner: str) -> tuple[str, str]:
    """The series and the value in a variant's name."""
    series, _, value = planner.rpartition(SEPARATOR)
    return series, value


def _name(series: str, value: object) -> str:
    return f"{series}{SEPARATOR}{value}"


def _steps() -> tuple[Variant, ...]:
    return tuple(
        Variant(
            _name(entry, steps),
            entry,
            ddim={"num_candidates": num_candidates, "num_inference_steps": steps},
        )
        for entry, num_candidates in ((RANKED, 16), (SINGLE, 1))
        for steps in STEPS
    )


def _candidates() -> tuple[Variant, ...]:
    return tuple(
        Variant(_name("ddim", num), RANKED, ddim={"num_candidates": num}) for num in CANDIDATES
    )

"""What the words after the benchmark's options mean."""

from __future__ import annotations

from pathlib import Path

from vj2_ddim_benchmark.planners.registry import entries_of
from vj2_ddim_benchmark.protocol.studies import DEFAULT_PLANNERS, OWN, SEPARATOR, StudySettings
from vj2_ddim_plugin.errors import ConfigError

__all__ = ["budgets_of", "names_of", "studies_from"]


def names_of(planners: list[str] | None) -> list[str]:
    """Words that are repeated or have commas between them, one by one."""
    return [name for words in planners or [] for name in words.split(",") if name]


def budgets_of(budget_ms: list[float] | None, full_plan: bool) -> tuple[float | None, ...]:
    """Each once, the smallest first, the full plan last."""
    limits: list[float | None] = [*sorted(set(budget_ms or ()))]
    return tuple([*limits, None] if full_plan or not limits else limits)


def studies_from(
    planners: list[str] | None, world_models: list[str] | None, bundles: list[str] | None
) -> StudySettings:
    """What the studies need.

    Args:
        planners: What `names_of` takes; the default ones where there are none.
        world_models: Each `NAME=FILE`.
        bundles: Each `NAME=DIR`.

    Raises:
        ConfigError: A file is not given with its name, or a planner is unknown.
    """
    names = names_of(planners)
    if names:
        entries_of(names)
    return StudySettings(
        tuple(names) or DEFAULT_PLANNERS,
        _named("--study-world-model", "FILE", world_models),
        _named("--study-bundle", "DIR", bundles),
    )


def _named(option: str, what: str, given: list[str] | None) -> dict[str, Path]:
    named = {}
    for words in given or []:
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

"""A setting is declared once: its type, its default, its range and a sentence of help.

```python
@dataclass(frozen=True)
class SearchSettings(Settings):
    num_candidates: int = setting(16, "Samples K that the planner's cost ranks.", low=1)
```

The constructor checks it, checkpoints and manifests store it, the command line makes its option of
it (`vj2_ddim_plugin.cli.options`) and the reference its row: each reads it here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from functools import lru_cache
from types import MappingProxyType, UnionType
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    NamedTuple,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from vj2_ddim_plugin.errors import ConfigError, VJ2DDIMError

if TYPE_CHECKING:  # Python 3.10 has it not
    from typing_extensions import Self

__all__ = [
    "Setting", "Settings", "declared", "is_a", "of_kind", "plain", "require_fits", "setting",
    "shown", "with_changes",
]  # fmt: skip

LONGEST_SHOWN = 200
MOST = 2**32  # of an integer without another bound: sizes of what is made are never larger


class Setting(NamedTuple):
    """What is declared of one field."""

    help: str  # one sentence
    low: float | None = None  # the lowest value allowed
    high: float | None = None
    above: float | None = None  # a bound that the value must exceed
    below: float | None = None
    choices: tuple[str, ...] = ()  # the values allowed; empty where any is
    option: str | None = None  # the command line's name where it is another, as `--json`

    @property
    def range(self) -> str:
        """The range in words, for example `at least 1`; empty where any value is allowed."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        bounds = (self.low, self.above, self.high, self.below)
        named = zip(("at least", "above", "at most", "below"), bounds, strict=True)
        return " and ".join(
            f"{word} {bound}" if isinstance(bound, int) else f"{word} {bound:g}"
            for word, bound in named
            if bound is not None
        )

    def allows(self, value: Any) -> bool:  # noqa: ANN401
        """Whether a value, or each of a sequence, is in range: NaN and inf never, None always."""
        if isinstance(value, tuple):
            return all(map(self.allows, value))
        if self.choices:
            return value is None or value in self.choices
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        usual = MOST if isinstance(value, int) else math.inf
        return (
            (isinstance(value, int) or math.isfinite(value))
            and (self.low is None or value >= self.low)
            and value <= (usual if self.high is None else self.high)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def setting(default: Any = MISSING, help: str = "", **rules: Any) -> Any:  # noqa: ANN401
    """A dataclass field with all that is known of it, see `Setting`; no default: must be given."""
    return field(default=default, metadata={"setting": Setting(help, **rules)})


def declared(kind: type[Settings]) -> Mapping[str, Setting]:
    """What is declared of each field of a settings class, by name and in order."""
    hashable: Any = kind  # mypy takes no class for hashable
    return _declared(hashable)[0]


@lru_cache(maxsize=64)
def _declared(kind: Any) -> tuple[Mapping[str, Setting], Mapping[str, Any]]:  # noqa: ANN401
    """The declarations of the fields and their types; reading them costs a plan's settings dear."""
    settings = {each.name: each.metadata["setting"] for each in fields(kind)}
    return MappingProxyType(settings), MappingProxyType(get_type_hints(kind))


S = TypeVar("S", bound="Settings")


def of_kind(kind: type[S], settings: S | None) -> S:
    """The settings given, or the defaults for None; `ConfigError` for anything else."""
    settings = kind() if settings is None else settings
    if not isinstance(settings, kind):
        raise ConfigError(f"expected {kind.__name__} or None; found {shown(settings)}")
    return settings


def with_changes(settings: S, changes: Mapping[str, Any], also_known: Sequence[str] = ()) -> S:
    """The settings with some fields replaced; `ConfigError` for a name that is no field.

    The message lists the fields, and the other names that the caller takes, `also_known`.
    """
    known = declared(type(settings))
    if unknown := sorted(set(changes) - set(known)):
        names = ", ".join(sorted([*known, *also_known]))
        raise ConfigError(f"{unknown[0]!r} is no setting; use one of {names}")
    return replace(settings, **changes) if changes else settings


@dataclass(frozen=True)
class Settings:
    """A frozen dataclass of declared settings, checked when it is made.

    A subclass that has rules between fields checks them in `check`.

    Raises:
        VJ2DDIMError: On construction (the subclass names which), for a value of another type or out
            of range. The message begins with the field's name.
    """

    error: ClassVar[type[VJ2DDIMError]] = ConfigError
    newer: ClassVar[tuple[str, ...]] = ()  # fields written only where they are not the default

    def __post_init__(self) -> None:
        """Check every field, then the rules between them."""
        for name in declared(type(self)):
            value = require_fits(type(self), name, given := getattr(self, name))
            if value is not given:
                object.__setattr__(self, name, value)
        self.check()

    def check(self) -> None:
        """Refuse fields that contradict one another; raises `error`."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as values that JSON and `torch.load(weights_only=True)` can hold."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
            if name not in self.newer or value != getattr(type(self), name)
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`; a missing or an unknown field raises `error`, by name."""
        names = {each.name for each in fields(cls)}
        given = set(values) if isinstance(values, Mapping) else set()
        missing, unknown = names - given - set(cls.newer), given - names
        if missing or unknown:
            raise cls.error(
                f"{cls.__name__} has missing fields {sorted(missing)} and unknown "
                f"fields {shown(sorted(map(str, unknown)))}"
            )
        return cls(**values)


def require_fits(kind: type[Settings], name: str, given: Any) -> Any:  # noqa: ANN401
    """A value for one field, as `plain` has it; the class's error where it cannot be one."""
    hashable: Any = kind
    rules, hints = _declared(hashable)
    hint, rule, value = hints[name], rules[name], plain(given)
    fits = is_a(value, hint)
    if rule.choices and not (fits and rule.allows(value)):
        raise kind.error(f"{name} {shown(value)} is unknown; use {rule.range}")
    if not fits:
        raise kind.error(f"{name} must be {_words(hint)}; found {shown(value)}")
    if not rule.allows(value):
        much = rule.high is None and isinstance(value, int) and value > MOST
        allowed = f"at most {MOST}" if much else rule.range or "finite"
        raise kind.error(f"{name} must be {allowed}; found {shown(value)}")
    return value


def shown(value: object) -> str:
    """What was found, as a message shows it: short, and whatever its `repr` does."""
    try:
        text = repr(value)
    except Exception:  # an integer of 5,000 digits, for example
        text = f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def plain(value: Any) -> Any:  # noqa: ANN401
    """Lists and arrays as tuples, the numbers of numpy as Python's; anything else as it is."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return tuple(map(plain, value)) if isinstance(value, list | tuple) else value


def is_a(value: object, hint: Any) -> bool:  # noqa: ANN401
    """Whether a value can be a field of this type; an int can be a float, a bool no int."""
    if hint is Any:
        return True
    if isinstance(hint, UnionType):
        return any(is_a(value, choice) for choice in get_args(hint))
    origin = get_origin(hint) or hint
    if origin in (tuple, list):
        return isinstance(value, origin) and all(is_a(each, get_args(hint)[0]) for each in value)
    if origin in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, (int, float) if origin is float else origin)


def _words(hint: Any) -> str:  # noqa: ANN401
    """A type as a sentence says it."""
    names = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
    if isinstance(hint, UnionType):
        return " or ".join(_words(choice) for choice in get_args(hint))
    if get_origin(hint) is tuple:
        return f"a sequence, each {_words(get_args(hint)[0])}"
    if hint is type(None):
        return "None"
    return names.get(hint, getattr(hint, "__name__", str(hint)))

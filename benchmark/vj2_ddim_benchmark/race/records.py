"""Raw results: one line of JSON a plan or chain, appended as they come, resumed after a crash."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any, Generic, TypeVar, get_type_hints

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vj2_ddim_benchmark.world.touch import NUM_STEPS, PAGE, drag, gesture_path
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.files import naming, require_regular_file
from vj2_ddim_plugin.settings import is_a, shown
from vj2_ddim_training.processes import locked

TOLERANCE_MS, TOLERANCE_SHARE = 2.0, 0.1
"""A plan is late if it is later than its budget by more than the larger of these."""

PlanKey = tuple[str, int, float | None]
"""A planner, a problem and a budget: what there is one result of."""

NEWLINE = b"\n"


class Outcome:
    """What the results of both tasks have in common."""

    planner: str
    problem: int
    budget_ms: float | None
    success: bool
    wall_ms: Any

    @property
    def key(self) -> PlanKey:
        """What this is the result of."""
        return self.planner, self.problem, self.budget_ms

    @property
    def late(self) -> bool:
        """Whether any plan came after its budget and the tolerance for the clock's noise."""
        if self.budget_ms is None:
            return False
        limit_ms = self.budget_ms + max(TOLERANCE_MS, TOLERANCE_SHARE * self.budget_ms)
        return bool(np.max(self.wall_ms, initial=0.0) > limit_ms)

    @property
    def solved(self) -> bool:
        """Whether it counts: a success without a late plan."""
        return self.success and not self.late


@dataclass(frozen=True)
class Record(Outcome):
    """One plan of a one-gesture problem and what came of it."""

    planner: str
    problem: int
    kind: str  # of the widget that had to be touched
    success: bool  # the plan put the screen into the goal state, be it in time or late
    success_before_projection: bool | None  # None where unknown
    final_cost: float  # by the race's world model, asked for after the clock stopped
    wall_ms: float  # from the two pictures to the plan
    cost_evaluations: int
    denoiser_evaluations: int
    budget_ms: float | None
    stopped_because: str  # `finished` or `deadline`
    projection_distance: float  # the largest change that projection made to the plan
    provider: str  # what ran
    workers: int = 1  # how many problems were solved at once, which makes plans slower


@dataclass(frozen=True)
class ChainRecord(Outcome):
    """One chain and what came of it, with all that is needed to draw it again."""

    planner: str
    problem: int
    length: int  # widgets that have to be touched
    success: bool  # the screen was in the goal state when the host stopped
    stopped: bool  # the host believed so; otherwise its gestures ran out
    state_distance: float  # gestures that the screen was from the goal state in the end
    budget_ms: float | None  # of each plan
    wall_ms: list[float]  # of each gesture, from the two pictures to the plan
    cost_evaluations: int  # over all gestures
    denoiser_evaluations: int
    latent_distances: list[float]  # that the host saw, before each gesture and after the last
    strokes: list[list[float]]  # the gestures that were executed, see `to_stroke`
    states: list[list[int]]  # the screen's state after each gesture
    workers: int = 1

    @property
    def num_gestures(self) -> int:
        """How many gestures were executed."""
        return len(self.strokes)


R = TypeVar("R", Record, ChainRecord)


class RecordLog(Generic[R]):
    """The records of a file that is open for more."""

    def __init__(self, records: list[R], stream: IO[bytes]) -> None:
        self.records: list[R] = records
        self._stream = stream

    def append(self, record: R) -> None:
        """Write one record and hand it to the operating system."""
        with naming(self._stream.name):
            self._stream.write(json.dumps(asdict(record)).encode() + NEWLINE)
            self._stream.flush()
        self.records.append(record)


@contextmanager
def record_log(path: Path, kind: type[R]) -> Iterator[RecordLog[R]]:
    """A locked file, without a last line that a crash cut short."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f"{path.name}.lock"), "folder"):
        content = _read(path) if path.exists() else b""
        records: list[R] = _parse(path, content, kind)
        with path.open("ab") as stream:
            stream.truncate(content.rfind(NEWLINE) + 1)
            yield RecordLog(records, stream)


def read_records(path: Path, kind: type[R]) -> list[R]:
    """The records of a file; a last line cut short is refused."""
    content = _read(path)
    if content and not content.endswith(NEWLINE):
        raise DataError(
            f"{path}, line {content.count(NEWLINE) + 1}: cut short; the run crashed or is still "
            f"being written: wait, or run the same command again, which resumes it"
        )
    return _parse(path, content, kind)


def _read(path: Path) -> bytes:
    return require_regular_file(path, DataError, "the results of a race").read_bytes()


def _parse(path: Path, content: bytes, kind: type[R]) -> list[R]:
    records = []
    for number, line in enumerate(content.split(NEWLINE)[:-1], start=1):  # the rest was cut short
        try:
            values = json.loads(line)
            _check(values, kind)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}, line {number}: not a {kind.__name__} of this version ({error}); make the "
                f"run again in another folder, or restore the file"
            ) from error
        records.append(kind(**values))
    return records


def _check(values: Any, kind: type[R]) -> None:  # noqa: ANN401
    """Raise a `ValueError` unless these are the fields, each of its type."""
    if not isinstance(values, dict):
        raise ValueError(f"it must be a JSON object; found {type(values).__name__}")
    known, optional = get_type_hints(kind), {f.name for f in fields(kind) if f.default != MISSING}
    missing, unknown = sorted(set(known) - optional - set(values)), sorted(set(values) - set(known))
    if missing or unknown:
        raise ValueError(f"fields missing: {missing}; fields unknown: {unknown}")
    for name, value in values.items():
        if not is_a(value, known[name]):
            hint = getattr(known[name], "__name__", known[name])
            raise ValueError(f"{name} must be {hint}; found {value!r}")


def to_stroke(action: ArrayLike) -> list[float]:
    """An action block `[250, 3]` in eight numbers, enough to draw it; none without a press.

    The first step with the finger down and how many it is down; then x and y of the start, of the
    place where the finger is at half time, and of the end, in [0, 1].
    """
    path = gesture_path(action) / PAGE
    if not len(path):
        return []
    block = np.asarray(action, float)
    first = ((block[:, 2] > 0.5) & ~np.isnan(block[:, :2]).any(axis=1)).argmax()
    via = path[[(len(path) - 1) // 2, len(path) // 2]].mean(axis=0)
    return [float(first), float(len(path)), *path[0].tolist(), *via.tolist(), *path[-1].tolist()]


def from_stroke(stroke: list[float]) -> NDArray[np.float32]:
    """The action block `[250, 3]` of a stroke: two straight lines, each at constant speed."""
    if not stroke:
        return np.zeros((NUM_STEPS, 3), np.float32)
    inside = all(0 <= steps <= NUM_STEPS for steps in stroke[:2])  # which NaN is not
    if len(stroke) != 8 or not inside or not np.isfinite(stroke).all():
        raise DataError(
            f"a stroke has eight numbers, steps in {NUM_STEPS}, or none; {shown(stroke)}"
        )
    first, num_steps, x0, y0, via_x, via_y, x1, y1 = stroke
    blocks = drag(x0, y0, x1, y1, int(first), int(num_steps), via=(via_x, via_y))
    return np.asarray(blocks[0])

"""`report.html`: a run as one page that grows while it trains, and needs no other file."""

import base64
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_training.run_folder import RunFolder, most_telling, read_lines

__all__ = ["Course", "Report", "course"]

WIDTH, HEIGHT, MOST_POINTS, TICKS = 460, 200, 400, 4
COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")
MEASURES = {
    "SNR, dB": ("mean_snr_db", "mean_snr_db_before_projection"),
    "errors": ("mse", "coord_mse", "press_mse"),
    "agreement": ("press_accuracy", "temporal_iou", "spatial_accuracy", "gesture_type_accuracy"),
}
Course = list[tuple[float, float]]


class Report(logging.Handler):
    """Writes the page of one run, which also shows what was warned of meanwhile."""

    def __init__(self, folder: RunFolder) -> None:
        super().__init__(logging.WARNING)
        self._folder = folder
        self.facts: Mapping[str, Any] = {}  # what there is to say besides the settings
        self.settings: Mapping[str, Any] = {}
        self._warnings: list[str] = []
        self._began = self._written = time.time()
        self.steps: Callable[[], tuple[int, int]] = lambda: (0, 0)  # done, and in all
        self.first_step = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a warning, and show it: Python itself does so only where no one listens."""
        self._warnings.append(record.getMessage())
        if logging.lastResort and not logging.getLogger().handlers:
            logging.lastResort.handle(record)

    @contextmanager
    def listening(self) -> Iterator["Report"]:
        """Hear what the package warns of."""
        logger = logging.getLogger(__package__)
        logger.addHandler(self)
        try:
            yield self
        finally:
            logger.removeHandler(self)

    def write(self, state: str = "training") -> None:
        """Write the page as it now is; `state` says how the run is or how it ended."""
        epochs, steps = read_lines(self._folder.metrics), read_lines(self._folder.steps)
        before, self._written = self._written, time.time()
        page = _template().render(
            name=self.settings["run_name"],
            state=state,
            now=_clock(self._written),
            due=_clock(2 * self._written - before),  # as long from now as this one took
            progress=self._progress(state),
            facts={**self.facts, **_best_and_last(self._folder, epochs)},
            warnings=self._warnings,
            charts=_charts(epochs, steps),
            pictures={path.stem: _data_url(path) for path in self._latest_pictures()},
            settings=self.settings,
            last=most_telling(epochs[-1] if epochs else {})[1],
        )
        with atomic_path(self._folder.report) as temporary:
            temporary.write_text(page, encoding="utf-8")

    def _progress(self, state: str) -> dict[str, str]:
        step, total = self.steps()
        seconds, done = time.time() - self._began, step - self.first_step
        found = {"step": f"{step:,} of {total:,}", "since the start": _duration(seconds)}
        if state == "training" and done > 0:
            found["left, about"] = _duration(seconds / done * (total - step))
        return found

    def _latest_pictures(self) -> list[Path]:
        found = sorted(self._folder.pictures.glob("epoch_*.png"))
        return [path for path in found if path.name[:11] == found[-1].name[:11]]


@cache
def _template() -> Any:  # noqa: ANN401
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__), autoescape=True, trim_blocks=True,
        lstrip_blocks=True, undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    return environment.get_template("report.html.jinja")


def course(lines: Sequence[Mapping[str, Any]], *path: str, over: str = "epoch") -> Course:
    """(epoch, value) of all lines that have a number there."""
    found = []
    for line in lines:
        value: Any = line
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, int | float) and over in line:
            found.append((line[over], value))
    return found


def _best_and_last(folder: RunFolder, epochs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    found = {}
    if epochs:
        found["last checkpoint"] = f"{folder.checkpoint.name}, epoch {epochs[-1]['epoch']}"
    for name, best in (("success", max), ("validation_loss", min)):
        points = course(epochs, name)
        if points:
            epoch, value = best(points, key=lambda point: point[1])
            found[f"best {name}"] = f"{value:.4g}, epoch {epoch}"
    if folder.best.exists():
        found["best checkpoint"] = folder.best.name
    return found


def _charts(
    epochs: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """All charts that have a point, over the steps."""
    by_step = [
        {**line, **most_telling(line)[1], "protocol": most_telling(line)[0]} for line in epochs
    ]
    every = {"over": "step"}
    loss = course(steps, "train", "loss", **every) or course(epochs, "loss", **every)
    of_steps = {
        name: course(steps, "train", name, **every)
        for name in ("gradient_norm", "seconds_per_sample", "noise_reduction")
    }
    rate = course(steps, "train", "learning_rate", **every) or course(epochs, "lr", **every)
    protocol = next((line["protocol"] for line in by_step[::-1] if line["protocol"]), "")
    held_out = course(epochs, "validation_loss", **every)
    charts = [_chart("loss", {"training": loss, "validation": held_out}, log=True)]
    charts += [_chart("success", {"success": course(epochs, "success", **every)})]
    charts += [
        _chart(f"{protocol}: {title}", {name: course(by_step, name, **every) for name in names})
        for title, names in MEASURES.items()
    ]
    charts += [_chart("learning rate", {"learning rate": rate})]
    charts += [_chart(name.replace("_", " "), {name: points}) for name, points in of_steps.items()]
    return [chart for chart in charts if chart["lines"]]


def _chart(title: str, courses: Mapping[str, Course], log: bool = False) -> dict[str, Any]:
    """Lines in the units of the picture, and its labels."""
    courses = {name: points[:: len(points) // MOST_POINTS + 1] for name, points in courses.items()}
    courses = {
        name: kept
        for name, points in courses.items()
        if (kept := [point for point in points if point[1] > 0 or not log])
    }
    every = [point for points in courses.values() for point in points] or [(0.0, 1.0)]
    scale = math.log10 if log else float
    lows, highs = ((of(x for x, _ in every), of(scale(y) for _, y in every)) for of in (min, max))
    spans = [(high - low) or 1.0 for low, high in zip(lows, highs, strict=True)]

    def at(x: float, y: float) -> str:
        right, up = (x - lows[0]) / spans[0], (scale(y) - lows[1]) / spans[1]
        return f"{right * WIDTH:.1f},{(1 - up) * HEIGHT:.1f}"

    ticks = [lows[1] + spans[1] * share / TICKS for share in range(TICKS + 1)]
    return {
        "title": title,
        "size": (WIDTH, HEIGHT),
        "lines": [
            (name, color, " ".join(at(*point) for point in points), f"{points[-1][1]:.4g}")
            for (name, points), color in zip(courses.items(), COLORS, strict=False)
        ],
        "x": [f"{lows[0]:,.0f}", f"{lows[0] + spans[0]:,.0f}"],
        "y": [
            (HEIGHT * (1 - i / TICKS), f"{10**tick if log else tick:.3g}")
            for i, tick in enumerate(ticks)
        ],
    }


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(seconds))


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if hours < 2 else f"{hours:.1f} h"


def _data_url(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")

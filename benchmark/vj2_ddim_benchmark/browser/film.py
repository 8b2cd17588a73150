"""A film of touches: what the page looked like, and the finger's trail over it as it grows."""

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vj2_ddim_benchmark.browser.driver import BLOCK_MS, STEP_MS, presses
from vj2_ddim_benchmark.world.touch import NUM_STEPS, Actions
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.files import atomic_path
from vj2_ddim_plugin.interface import FloatArray

FORMATS = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG", ".apng": "PNG"}
FRAME_MS = 50  # ten to a block
BORDER, LINE = 8, 26  # pixels
FINE = 2  # how much larger trails are drawn before the picture is brought to its size
PLAN, CASING, OTHERS = (232, 89, 12, 255), (255, 255, 255, 255), (60, 130, 255, 120)
FINGER = (232, 89, 12, 150)
WIDTH, REACH = 3.0, 9.0  # of a plan's trail and of a finger, in pixels
PAPER, INK, REACHED, MISSED = "#ffffff", "#202124", "#1e8e3e", "#d93025"
FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


class Shot(NamedTuple):
    """A picture of a film and for how long it is shown."""

    picture: Image.Image
    ms: int


class Block(NamedTuple):
    """A touch: its plan, what else was considered, and the page from just before it on.

    `action` is `[250, 3]`, `candidates` `[K, 250, 3]`; a frame is the page's time in ms and a PNG.
    """

    action: Actions
    candidates: FloatArray
    frames: list[tuple[float, bytes]]


class Words(NamedTuple):
    """What is said over and under the two pictures, and the colour of what is said under."""

    over: str
    under: str
    color: str = INK


def shots_of(block: Block, goal: bytes, words: Words, size: int) -> Iterator[Shot]:
    """A block at the speed of its 2 Hz, in pictures that are `size` pixels across."""
    first_ms, wanted = block.frames[0][0], page_picture(goal, size)
    for now in range(FRAME_MS, int(BLOCK_MS) + 1, FRAME_MS):
        passed = [png for ms, png in block.frames if ms - first_ms <= now]
        png = passed[-1] if now < BLOCK_MS else block.frames[-1][1]  # at the end it is at rest
        page = draw_trails(page_picture(png, size), block.action, block.candidates, now)
        yield Shot(beside(page, wanted, words), FRAME_MS)


def still(png: bytes, goal: bytes, words: Words, size: int, ms: int) -> Shot:
    """The page without a touch."""
    return Shot(beside(page_picture(png, size), page_picture(goal, size), words), ms)


def page_picture(png: bytes, size: int) -> Image.Image:
    """A page's picture brought to `size` pixels across."""
    page = Image.open(io.BytesIO(png)).convert("RGB")
    return page.resize((size, size), Image.Resampling.BOX)


def draw_trails(
    page: Image.Image, action: Actions, candidates: FloatArray, until_ms: float
) -> Image.Image:
    """The page with all candidates `[K, 250, 3]`, faint, and a plan `[250, 3]` up to a time."""
    large = page.resize((FINE * page.width, FINE * page.height), Image.Resampling.NEAREST)
    pen, unit = ImageDraw.Draw(large, "RGBA"), FINE * page.width / 320
    for candidate in candidates:
        for path in _paths(candidate, NUM_STEPS):
            _trail(pen, path * large.width, OTHERS, 0.5 * WIDTH * unit)
    steps = int(until_ms / STEP_MS)
    for path in _paths(action, steps):
        _trail(pen, path * large.width, CASING, 2.0 * WIDTH * unit)
        _trail(pen, path * large.width, PLAN, WIDTH * unit)
    if steps and len(down := _paths(action[steps - 1 : steps], 1)):
        (x, y), reach = down[0][0] * large.width, REACH * unit
        box = (x - reach, y - reach, x + reach, y + reach)
        pen.ellipse(box, fill=FINGER, outline=CASING, width=round(unit))
    return large.resize(page.size, Image.Resampling.BOX)


def _paths(action: FloatArray, steps: int) -> list[FloatArray]:
    """The paths `[m, 2]` of every press within the first steps, in shares of the page."""
    points = np.clip(np.asarray(action[:steps, :2], float), 0.0, 1.0)
    return [points[first:stop] for first, stop in presses(action[:steps])]


def _trail(
    pen: ImageDraw.ImageDraw, path: FloatArray, color: tuple[int, ...], width: float
) -> None:
    """A line with a dot where it begins; of a tap only the dot is seen."""
    (x, y), reach = path[0], 1.4 * width
    pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=color)
    pen.line([(x, y) for x, y in path.tolist()], fill=color, width=round(width), joint="curve")


def beside(page: Image.Image, goal: Image.Image, words: Words) -> Image.Image:
    """Page and goal beside each other, with words over and under them."""
    size = page.width
    sheet = Image.new("RGB", (2 * size + 3 * BORDER, page.height + 2 * LINE), PAPER)
    sheet.paste(page, (BORDER, LINE))
    sheet.paste(goal, (2 * BORDER + size, LINE))
    pen, font = ImageDraw.Draw(sheet), ImageFont.truetype(str(FONT), round(14 * size / 320))
    low = LINE + page.height + LINE // 2
    for x, y, text, color in (
        (BORDER, LINE // 2, words.over, INK),
        (2 * BORDER + size, LINE // 2, "goal", INK),
        (BORDER, low, words.under, words.color),
        (2 * BORDER + size, low, "plan", PLAN[:3]),
        (2 * BORDER + round(1.15 * size), low, "other candidates", OTHERS[:3]),
    ):
        pen.text((x, y), text, fill=color, font=font, anchor="lm")
    return sheet


def checked_format(path: Path) -> str:
    """The format that a film's suffix names; a `ConfigError` for another."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"out must end in {', '.join(FORMATS)}; found {path.name!r}")
    return FORMATS[path.suffix.lower()]


def save_film(path: Path, shots: Sequence[Shot]) -> None:
    """Write an animation that loops, whole or not at all; a `ConfigError` for another suffix."""
    kind = checked_format(path)
    more = {"lossless": True} if kind == "WEBP" else {}
    times = [shot.ms for shot in shots]
    first, *rest = (shot.picture for shot in shots)
    with atomic_path(path) as temporary:
        first.save(
            temporary, kind, save_all=True, append_images=rest, duration=times, loop=0, **more
        )


class Window:
    """A window that films are shown in; a `ConfigError` where there is no display."""

    def __init__(self) -> None:
        import matplotlib.pyplot as plt  # what it imports depends on the display

        self._pyplot = plt
        self._figure = plt.figure(figsize=(6.64, 3.72), facecolor=PAPER)
        if self._figure.canvas.required_interactive_framework is None:
            plt.close(self._figure)
            raise ConfigError("there is no display to watch on; write a film, with --out FILE.gif")

    def play(self, shots: Iterable[Shot]) -> None:
        """Show pictures, each as long as it says; once the window is closed, as after Ctrl-C."""
        for picture, ms in shots:
            if not self._pyplot.fignum_exists(self._figure.number):
                raise KeyboardInterrupt
            self._figure.clear()
            axes = self._figure.add_axes((0, 0, 1, 1))
            axes.set_axis_off()
            axes.imshow(picture)
            self._pyplot.pause(ms / 1000)

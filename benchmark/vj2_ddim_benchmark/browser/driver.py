"""One page in a browser: shown, touched by action blocks frame by frame, read and photographed.

Time is the page's own (`clock.js`): a frame moves it, nothing else does. What the page asks for is
answered from memory; whatever else it asks for is refused.
"""

import base64
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from vj2_ddim_benchmark.browser.chromium import (
    START_TIMEOUT_S,
    BrowserError,
    Chromium,
    Message,
    PageError,
)
from vj2_ddim_benchmark.browser.kit import HERE
from vj2_ddim_benchmark.world.painting import Images
from vj2_ddim_benchmark.world.touch import NUM_STEPS
from vj2_ddim_plugin.errors import ActionError
from vj2_ddim_plugin.gestures.segments import IntArray

SIDE = 320  # CSS pixels across the page, whatever the size of its picture
STEP_MS, BLOCK_MS, SECOND_MS = 2.0, 500.0, 1000.0
FRAME_MS = 1000 / 60  # while a finger is down
REST_MS = 100.0  # longest frame while something moves by itself
MAX_REST_FRAMES = 100
EXTRA_US = 100  # between frames that only wait for a touch to be acknowledged; less would hang
PATIENCE_S = 0.002  # before such a frame
START_US = 10**15  # of frames, far ahead of the browser's own clock: else animations follow that
LONGEST_PRESS_S = 1.5  # by the wall; slower ones did the same where tried, still slower may not
ORIGIN = "http://page.invalid"
POLICY = "default-src 'self' data: 'unsafe-inline'; connect-src 'none'; form-action 'none'"

MOUSE_EVENTS = {
    "touchStart": "mousePressed", "touchMove": "mouseMoved", "touchEnd": "mouseReleased",
}  # fmt: skip

Touch = tuple[str, float, float]  # type, x and y in CSS pixels

Touches = Iterable[tuple[float, list[Touch]]]
"""Touches frame by frame, each frame with its time in ms."""

OnFrame = Callable[[float, bytes], None]
"""Told the page's time in ms and its picture, a PNG 320 pixels across."""

Target = list[float]  # left, top, width, height in CSS pixels

Files = Mapping[str, tuple[str, bytes]]
"""All that a page may ask for: path to MIME type and content."""


class View(NamedTuple):
    """A browser's window, and the square of it that is seen and touched, in its CSS pixels.

    Touches and boxes are given in `SIDE`ths of that square.
    """

    width: int = SIDE
    height: int = SIDE
    left: int = 0
    top: int = 0
    side: int = SIDE
    mobile: bool = True


KIT_VIEW = View()


def frames_of(action: ArrayLike) -> Iterator[tuple[float, list[Touch]]]:
    """The touches of an action block `[250, 3]`, frame by frame, each with its time in ms.

    A press begins and ends at frames of its own; between them there is one every 1/60 s. A finger
    is down where press > 0.5 and x and y are numbers; the end of the block lifts it.

    Raises:
        ActionError: The block has another shape, or is not of numbers.
    """
    block = np.asarray(action)
    if block.shape != (NUM_STEPS, 3) or block.dtype.kind not in "fiub":
        raise ActionError(
            f"an action must be numbers of shape {(NUM_STEPS, 3)}; found {block.dtype} of shape "
            f"{block.shape}"
        )
    points = np.clip(block[:, :2].astype(float) * SIDE, 0.0, SIDE - 0.5).round(2).tolist()
    for first, stop in presses(block).tolist():
        yield STEP_MS * first, [("touchStart", *points[first])]
        last = points[first]
        for frame in range(1, 1 + int(STEP_MS * (stop - first) / FRAME_MS)):
            now = STEP_MS * first + frame * FRAME_MS
            point = points[min(int(now / STEP_MS), stop - 1)]
            if now < STEP_MS * stop - 1.0:
                yield now, [("touchMove", *point)] if point != last else []
                last = point
        moved: list[Touch] = [("touchMove", *points[stop - 1])] if points[stop - 1] != last else []
        yield STEP_MS * stop, [*moved, ("touchEnd", 0.0, 0.0)]


def presses(block: NDArray[Any]) -> IntArray:
    """First step and the one after the last, `[m, 2]`, of every press of `[n, 3]` actions."""
    pressed = (block[:, 2] > 0.5) & ~np.isnan(block[:, :2].astype(float)).any(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], pressed, [False]]).astype(int)))
    return edges.reshape(-1, 2)


class TouchedPage:
    """A browser's only page; after a `BrowserError` the browser is to be closed."""

    mouse = False  # whether a mouse does what a finger would

    def __init__(
        self, browser: Chromium, files: Files, size: int, view: View = KIT_VIEW,
        scripts: Sequence[str] = ("clock.js",),
    ) -> None:  # fmt: skip
        """Open it, empty, for pictures of `size` pixels across; scripts run before a page's own."""
        self.browser, self.size, self.view = browser, size, view
        self.refused: list[str] = []  # what the page asked for and did not get
        self.on_frame: OnFrame | None = None  # told every frame
        self._files = files
        self._now, self._us = 0.0, START_US
        self._pointer = 0.0, 0.0
        self._loaded, self._moving, self._due_ms = False, 0, 0.0
        browser.on_event = self._on_event
        scale = SIDE / view.side
        self._drawn = round(view.width * scale), round(view.height * scale)  # pixels
        context = browser.call("Target.createBrowserContext")["browserContextId"]
        target = browser.call(
            "Target.createTarget", url="about:blank", width=view.width, height=view.height,
            enableBeginFrameControl=True, browserContextId=context,
        )["targetId"]  # fmt: skip
        attached = browser.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session: str = attached["sessionId"]
        self._call("Page.enable")
        self._call("Inspector.enable")
        self._call("Fetch.enable", patterns=[{"urlPattern": "*"}])
        self._call(
            "Emulation.setDeviceMetricsOverride", width=view.width, height=view.height,
            deviceScaleFactor=scale, mobile=view.mobile,
        )  # fmt: skip
        self._call("Emulation.setTouchEmulationEnabled", enabled=True, maxTouchPoints=1)
        for name in scripts:
            source = (HERE / name).read_text()
            self._call("Page.addScriptToEvaluateOnNewDocument", source=source)

    def load(self, theme: str) -> None:
        """Load the kit in a theme, `"ios"` or `"md"`."""
        self.navigate(f"{ORIGIN}/page.html?theme={theme}")

    def navigate(self, url: str) -> None:
        """Go to an address; a `BrowserError` if it is refused or never comes to rest."""
        self._loaded = False
        answer = self._call("Page.navigate", url=url)
        if answer.get("errorText"):
            raise BrowserError(f"{url} was not loaded: {answer['errorText']}")
        while not self._loaded:
            self.browser.read(START_TIMEOUT_S)
        self.rest()

    def show(self, spec: dict[str, Any], state: Sequence[int]) -> None:
        """Build the widgets of a specification, in a state each, and let them come to rest."""
        self.begin(f"clock.seed(1); page.build({json.dumps(spec)}, {json.dumps(state)})")

    def begin(self, script: str) -> None:
        """Run what makes a page at a full second of its time, and let it come to rest."""
        self._frame(SECOND_MS - self._now % SECOND_MS)  # so that times are rounded alike
        self.evaluate(script)
        self._moving = 1  # as far as is known
        self.rest()

    def touch(self, frames: Touches, longest_s: float | None = None) -> None:
        """Perform an action block, as `frames_of` has it, then let the page come to rest.

        A `BrowserError` says that a press took longer by the wall than it may.
        """
        begun, start_s = self._now, 0.0
        for time_ms, touches in frames:
            self._pass(begun + time_ms)
            self._frame(max(begun + time_ms - self._now, STEP_MS), touches)
            if touches and touches[0][0] == "touchStart":
                start_s = time.monotonic()
            elif touches and touches[-1][0] == "touchEnd":
                held_s = time.monotonic() - start_s
                if held_s > (longest_s or LONGEST_PRESS_S):
                    raise BrowserError(f"a press took {held_s:.1f} s: the machine is too busy")
        self._pass(begun + BLOCK_MS)
        self.rest()

    def leave(self) -> None:
        """Take a mouse, and what hovers where a finger was, to the window's corner."""
        self._frame(FRAME_MS, [("leave", 0.0, 0.0)])

    def rest(self) -> None:
        """Let time pass until nothing moves and no timer is left."""
        for _ in range(MAX_REST_FRAMES):
            quiet = not self._moving and not self._due_ms
            self._frame(self._next_ms())
            if quiet and not self._moving and not self._due_ms:
                return
        raise BrowserError(f"the page does not come to rest within {MAX_REST_FRAMES} frames")

    def picture(self) -> Images:
        """What it looks like, `[size, size, 3]`."""
        drawn = self._frame(FRAME_MS, picture=True)
        if drawn is None:
            raise BrowserError("the browser drew no picture")
        image = Image.open(io.BytesIO(drawn)).convert("RGB")
        if image.size != self._drawn:
            raise BrowserError(f"the browser drew {image.size} pixels, expected {self._drawn}")
        scale = SIDE / self.view.side
        left, top = round(self.view.left * scale), round(self.view.top * scale)
        seen = (left, top, left + SIDE, top + SIDE)
        return np.asarray(image.resize((self.size, self.size), Image.Resampling.BOX, seen))

    def state(self) -> list[int]:
        """The state of each widget, read from the DOM."""
        found: list[int] = self.evaluate("page.state()")
        return found

    def targets(self) -> list[list[Target]]:
        """The boxes to touch of each widget, read from the DOM."""
        found: list[list[Target]] = self.evaluate("page.targets()")
        return found

    def evaluate(self, expression: str) -> Any:  # noqa: ANN401
        """The value of a JavaScript expression in the page; a `BrowserError` if it throws."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            thrown = answer["exceptionDetails"].get("exception", {}).get("description", "an error")
            raise PageError(f"the page threw {thrown}")
        return answer["result"].get("value")

    def _call(self, method: str, **parameters: object) -> Message:
        return self.browser.call(method, self._session, **parameters)

    def _next_ms(self) -> float:
        """How far the next frame may be: short while something moves, else to the next timer."""
        return REST_MS if self._moving or not self._due_ms else max(self._due_ms, FRAME_MS)

    def _pass(self, until: float) -> None:
        """Frames up to a time, which is not reached: the next frame is there."""
        while (self._moving or self._due_ms) and self._now + self._next_ms() < until - STEP_MS:
            self._frame(self._next_ms())

    def _frame(
        self, ms: float, touches: Sequence[Touch] = (), picture: bool = False
    ) -> bytes | None:
        """Move the page's time, touch, and draw until all touches are acknowledged.

        Each waits for the one before, so that a touch is seen at the same time in every run.
        """
        self._now += ms
        self._us += round(ms * 1000)
        self._moving, self._due_ms, errors = self.evaluate(f"clock.advance({self._now:.3f})")
        if errors:
            raise PageError(f"the page threw {errors[0]}")
        waiting = [self._dispatch(*touch) for touch in touches]
        self.browser.answered(waiting, PATIENCE_S)
        wanted = picture or self.on_frame is not None
        shot = {"screenshot": {"format": "png", "optimizeForSpeed": True}} if wanted else {}
        drawn = self._draw(ms, **shot)
        deadline = time.monotonic() + self.browser.timeout_s
        while not self.browser.answered(waiting, PATIENCE_S) and time.monotonic() < deadline:
            self._us += EXTRA_US
            self._draw(ms)
        for message_id in waiting:
            self.browser.wait(message_id)
        png = base64.b64decode(drawn["screenshotData"]) if "screenshotData" in drawn else None
        if png is not None and self.on_frame is not None:
            self.on_frame(self._now, png)
        return png

    def _draw(self, ms: float, **more: object) -> Message:
        settings = {"frameTimeTicks": self._us / 1000, "interval": ms, "noDisplayUpdates": False}
        return self._call("HeadlessExperimental.beginFrame", **settings, **more)

    def _dispatch(self, kind: str, x: float, y: float) -> int:
        if kind == "leave":
            corner: dict[str, object] = {"type": "mouseMoved", "x": 0, "y": 0}
            return self.browser.send("Input.dispatchMouseEvent", self._session, **corner)
        scale = self.view.side / SIDE
        x, y = self.view.left + scale * x, self.view.top + scale * y
        if self.mouse:
            self._pointer = self._pointer if kind == "touchEnd" else (x, y)
            x, y = self._pointer
            return self.browser.send(
                "Input.dispatchMouseEvent", self._session, type=MOUSE_EVENTS[kind], x=x, y=y,
                button="left", buttons=int(kind != "touchEnd"), clickCount=1,
            )  # fmt: skip
        finger = {"x": x, "y": y, "radiusX": 4, "radiusY": 4, "force": 1, "id": 0}
        return self.browser.send(
            "Input.dispatchTouchEvent", self._session, type=kind,
            touchPoints=[] if kind == "touchEnd" else [finger],
        )  # fmt: skip

    def _on_event(self, event: Message) -> None:
        method, parameters = event["method"], event["params"]
        if method == "Fetch.requestPaused":
            self._answer(parameters["requestId"], parameters["request"]["url"])
        elif method == "Page.loadEventFired":
            self._loaded = True
        elif method in ("Inspector.targetCrashed", "Target.detachedFromTarget"):
            raise BrowserError("the page has crashed")

    def _answer(self, request: str, url: str) -> None:
        """Give what is ours, refuse anything else."""
        origin, path = url[: len(ORIGIN)], url[len(ORIGIN) :].partition("?")[0]
        kind, content = self._files.get(path, ("", b"")) if origin == ORIGIN else ("", b"")
        if not kind:
            self.refused.append(url)
            refusal = {"requestId": request, "errorReason": "BlockedByClient"}
            self.browser.tell("Fetch.failRequest", self._session, **refusal)
            return
        headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Security-Policy": POLICY}
        self.browser.tell(
            "Fetch.fulfillRequest", self._session, requestId=request, responseCode=200,
            responseHeaders=[{"name": name, "value": value} for name, value in headers.items()],
            body=base64.b64encode(content).decode(),
        )  # fmt: skip

"""A browser that shows one page after another, and is started again when it has failed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

from numpy.typing import ArrayLike

from vj2_ddim_benchmark.browser.chromium import BrowserError, Chromium
from vj2_ddim_benchmark.browser.driver import (
    SIDE,
    OnFrame,
    Target,
    TouchedPage,
    Touches,
    View,
    frames_of,
)
from vj2_ddim_benchmark.browser.kit import Installation
from vj2_ddim_benchmark.browser.pages import Page
from vj2_ddim_benchmark.settings import MAX_PAGE_SIZE, MIN_PAGE_SIZE
from vj2_ddim_benchmark.world.painting import Images
from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.gestures.segments import IntArray

MAX_SHOWN = 100  # pages after which the kit is loaded anew
NUM_TRIES = 3  # of what a browser fails at, where the machine is too busy

T = TypeVar("T")
Shown = TypeVar("Shown")
State = TypeVar("State")


def retried(do: Callable[[], T]) -> T:
    """What it returns; where a browser fails it is done again, in another, three times in all."""
    for _ in range(NUM_TRIES - 1):
        with suppress(BrowserError):
            return do()
    return do()


class BrowserSession(Generic[Shown, State]):
    """A browser with one page; after any error the next page is in a new browser.

    What is shown is a page of some kind, and what is read from it a state of that kind.
    """

    view = View()
    needs_kit = False

    def __init__(self, size: int = 64, installed: Installation | None = None) -> None:
        """Nothing is started yet.

        Args:
            size: Pixels across a picture, 32 to 320.
            installed: Where browser and kit are; where the environment says unless told.

        Raises:
            ConfigError: Browser or pages are missing, or the size is out of range.
        """
        if not MIN_PAGE_SIZE <= size <= MAX_PAGE_SIZE:
            raise ConfigError(f"size must be {MIN_PAGE_SIZE} to {MAX_PAGE_SIZE}; found {size}")
        self.size = size
        self.installed = (installed or Installation.find()).require(self.needs_kit)
        self.on_frame: OnFrame | None = None  # told every frame from the next page on
        self.browser: Chromium | None = None
        self._touched: TouchedPage | None = None
        self._shown: Shown | None = None

    def touch(self, action: ArrayLike) -> tuple[Images, State]:
        """Perform an action block `[250, 3]`; returns picture and state after it.

        Raises:
            BrowserError: The browser failed, or no page is shown: the touch is lost.
            ActionError: The block has another shape; nothing is done.
        """
        frames = list(frames_of(action))
        with self._closed_on_errors():
            shown, touched = self._showing()
            self._perform(touched, frames)
            return touched.picture(), self._read(shown, touched)

    def close(self) -> None:
        """End the browser, if one runs; the session can be used again."""
        if self.browser is not None:
            self.browser.close()
        self.browser = self._touched = self._shown = None

    @contextmanager
    def _closed_on_errors(self) -> Iterator[None]:
        try:
            yield
        except BaseException:  # Ctrl-C too leaves a page in the middle of a touch
            self.close()
            raise

    def _opened(self) -> TouchedPage:
        """The browser's page, whatever it shows; a new one's where none runs."""
        if self._touched is None:
            self.browser = Chromium(self.installed.binary, SIDE / self.view.side)
            self._touched = self._open(self.browser)
        self._touched.on_frame = self.on_frame
        return self._touched

    def _showing(self) -> tuple[Shown, TouchedPage]:
        if self._shown is None or self._touched is None:
            raise BrowserError("no page is shown; reset, or show one, first")
        return self._shown, self._touched

    def _open(self, browser: Chromium) -> TouchedPage:
        raise NotImplementedError

    def _perform(self, touched: TouchedPage, frames: Touches) -> None:
        touched.touch(frames)

    def _read(self, shown: Shown, touched: TouchedPage) -> State:
        raise NotImplementedError


class Session(BrowserSession[Page, IntArray]):
    """Shows pages of the kit and has them touched."""

    needs_kit = True

    def __init__(self, size: int = 64, installed: Installation | None = None) -> None:
        """Nothing is started yet; `BrowserSession` says what is refused."""
        super().__init__(size, installed)
        self._theme, self._num_shown = "", 0

    def show(self, page: Page, state: ArrayLike) -> Images:
        """Show a page in a state `[5]`; returns its picture `[size, size, 3]`.

        Raises:
            BrowserError: The browser failed, or the page is not in that state then.
            DataError: It is no state of the page.
        """
        wanted = page.checked(state)[: len(page.widgets)].tolist()
        with self._closed_on_errors():
            touched = self._loaded(page.theme)
            touched.show(page.to_dict(), wanted)
            if (found := touched.state()) != wanted:
                raise BrowserError(f"the page is in state {found}, not {wanted} as it was told")
            self._shown = page
            return touched.picture()

    def boxes(self) -> list[list[Target]]:
        """The boxes to touch of each widget: left, top, width and height in CSS pixels."""
        with self._closed_on_errors():
            return self._showing()[1].targets()

    def close(self) -> None:
        """End the browser, if one runs; the session can be used again."""
        super().close()
        self._theme = ""

    def _loaded(self, theme: str) -> TouchedPage:
        """The page with the kit in a theme, loaded anew for another and now and then."""
        touched = self._opened()
        if theme != self._theme or self._num_shown >= MAX_SHOWN:
            touched.load(theme)
            self._theme, self._num_shown = theme, 0
        self._num_shown += 1
        return touched

    def _open(self, browser: Chromium) -> TouchedPage:
        return TouchedPage(browser, self.installed.files(), self.size)

    def _read(self, shown: Page, touched: TouchedPage) -> IntArray:
        """Its state `[5]`."""
        return shown.padded(touched.state())

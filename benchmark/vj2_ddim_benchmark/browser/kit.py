"""What is not ours and must be installed: a headless Chromium and the files of a mobile UI kit."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import invalidate_caches
from pathlib import Path

from vj2_ddim_plugin.errors import ConfigError, DataError
from vj2_ddim_plugin.files import read_json

KIT, VERSION = "framework7", "9.2.0"  # MIT
KIT_FILES = ("framework7-bundle.min.css", "framework7-bundle.min.js")
KIT_VARIABLE, BINARY_VARIABLE = "VJ2_DDIM_BROWSER_KIT", "VJ2_DDIM_BROWSER"
DEBIAN_PACKAGES = ("chromium-headless-shell", "fonts-dejavu-core")
DEFAULT_BINARY = Path("/usr/lib/chromium/chromium-headless-shell")  # /usr/bin has a script
PAGE_FILES = ("page.html", "page.js")
HERE = Path(__file__).parent
TYPES = {
    ".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".png": "image/png",
    ".gif": "image/gif",
}  # fmt: skip


def install_package(command: str) -> None:
    """Try to install a package by its `pip install ...`, into this Python."""
    subprocess.run([sys.executable, "-m", *command.split()], check=False)
    invalidate_caches()


@dataclass(frozen=True)
class Installation:
    """Where the browser and the kit are, or would be."""

    binary: Path
    kit: Path  # the folder in which npm made its `node_modules`

    @classmethod
    def find(cls) -> "Installation":
        """Where the environment says (`VJ2_DDIM_BROWSER`, `VJ2_DDIM_BROWSER_KIT`), or usual."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        kit = os.environ.get(KIT_VARIABLE) or cache / "vj2-ddim" / "browser-kit"
        return cls(Path(os.environ.get(BINARY_VARIABLE) or DEFAULT_BINARY), Path(kit))

    @property
    def install_browser(self) -> list[str]:
        """The command that installs the browser on Debian."""
        return ["apt-get", "install", "--yes", "--no-install-recommends", *DEBIAN_PACKAGES]

    @property
    def install_kit(self) -> list[str]:
        """The command that installs the kit."""
        quiet = ("--ignore-scripts", "--no-audit", "--no-fund")
        return ["npm", "install", "--prefix", str(self.kit), *quiet, f"{KIT}@{VERSION}"]

    def missing(self, kit: bool = True) -> dict[str, list[str]]:
        """What is missing, in words, and the command that installs it; the kit only if asked."""
        found: dict[str, list[str]] = {}
        if not os.access(self.binary, os.X_OK) or self.binary.is_dir():
            found[f"no program {self.binary} (or name one in {BINARY_VARIABLE})"] = (
                self.install_browser
            )
        if kit and (words := self._wrong_with_kit()) is not None:
            found[f"{words} (or name its folder in {KIT_VARIABLE})"] = self.install_kit
        return found

    def _wrong_with_kit(self) -> str | None:
        folder = self.kit / "node_modules" / KIT
        try:
            version = read_json(folder / "package.json", DataError).get("version")
        except DataError:
            return f"no {KIT} {VERSION} in {self.kit}"
        if version != VERSION:
            return f"{KIT} {version} in {self.kit}, expected {VERSION}"
        absent = [name for name in KIT_FILES if not (folder / name).is_file()]
        return f"{folder} lacks {absent[0]}" if absent else None

    def require(self, kit: bool = True) -> "Installation":
        """Itself; a `ConfigError` that says how to install what is missing of browser and kit."""
        if missing := self.missing(kit):
            words = "; ".join(
                f"{what}: run `{' '.join(command)}`" for what, command in missing.items()
            )
            raise ConfigError(f"a browser world needs what is not here: {words}")
        return self

    def files(self) -> Mapping[str, tuple[str, bytes]]:
        """All that a page may ask for: path to MIME type and content."""
        own = [HERE / name for name in PAGE_FILES]
        theirs = [self.kit / "node_modules" / KIT / name for name in KIT_FILES]
        return {
            f"/{path.name}": (TYPES[path.suffix], path.read_bytes()) for path in (*own, *theirs)
        }

    def install(self) -> None:
        """Install what is missing: the kit by npm, the browser by apt-get where we are root.

        Raises:
            ConfigError: Something is still missing: npm or root's rights, or the command failed.
        """
        for command in self.missing().values():
            allowed = command[0] == "npm" or os.geteuid() == 0
            if allowed and shutil.which(command[0]):
                if command[0] == "apt-get":
                    subprocess.run(["apt-get", "update"], check=False)
                self.kit.mkdir(parents=True, exist_ok=True)
                subprocess.run(command, check=False)
        self.require()

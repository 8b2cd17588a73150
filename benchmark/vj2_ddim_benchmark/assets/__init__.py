"""The trained parts of a benchmark, in a run's folder or, `shipped`, in the package."""

from dataclasses import replace
from pathlib import Path

from vj2_ddim_benchmark.settings import RaceSettings
from vj2_ddim_plugin.errors import DataError
from vj2_ddim_plugin.files import sha256_of

SHIPPED = Path(__file__).parent / "shipped"
COMMAND = "vj2-ddim benchmark assets build --threads 1 --out OUT"
"""What makes the shipped parts anew."""
PARTS = ("world_model", "bundle", "student", "regression", "gaussian")  # all that is shipped


class Assets:
    """Paths in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world_model = folder / "world_model.pt"  # that every planner plans through
        self.bundle = folder / "bundle"  # the exported denoiser, with its ranker
        self.student = folder / "student"  # its student of one step, exported, with a ranker
        self.regression = folder / "regression.pt"  # of the action, from the same latents
        self.gaussian = folder / "gaussian.pt"  # over actions, from the same latents
        self.latents = folder / "latents"  # transitions, embedded (HDF5); not shipped
        self.denoiser = folder / "denoiser"  # its training run; not shipped
        self.provenance = folder / "provenance.json"  # what made them and what they measured

    def fill(self, settings: RaceSettings) -> RaceSettings:
        """The settings of a race, with these parts where none are given."""
        found = {name: getattr(settings, name) or getattr(self, name) for name in PARTS}
        return replace(settings, **found)

    def complete(self) -> bool:
        """Whether everything a benchmark needs is there."""
        return all(getattr(self, name).exists() for name in PARTS)

    def hashes(self) -> dict[str, str]:
        """sha256 of every file of the parts, by its path in the folder."""
        parts = [getattr(self, name) for name in PARTS]
        files = [
            file for part in parts for file in (part, *sorted(part.glob("*"))) if file.is_file()
        ]
        return {path.relative_to(self.folder).as_posix(): sha256_of(path) for path in files}


def shipped_assets() -> Assets:
    """The parts that come with the package; the recorded figures were measured with them."""
    assets = Assets(SHIPPED)
    if not assets.complete():
        raise DataError(
            f"{SHIPPED}: the trained parts that come with the package are not all there; install "
            f"it anew, or make them with `vj2-ddim benchmark run --retrain`"
        )
    return assets

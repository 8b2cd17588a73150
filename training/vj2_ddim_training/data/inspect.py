"""What a data set of any format holds, what is wrong with it, and a picture of it.

Everything is looked at, a part at a time: what it takes in memory does not grow with the data.
"""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from vj2_ddim_plugin.arrays import StoredArray, readable
from vj2_ddim_plugin.cli.pictures import as_label, draw_paths
from vj2_ddim_plugin.errors import DataError, escaped
from vj2_ddim_plugin.gestures import pressed
from vj2_ddim_plugin.interface import FloatArray
from vj2_ddim_plugin.spec import ActionSpec
from vj2_ddim_training.data.gesture_files import (
    fingerprint_files,
    read_action_file,
    tail_fault,
)
from vj2_ddim_training.data.hdf5 import Hdf5Array
from vj2_ddim_training.data.manifest import Manifest, files_by_split, read_manifest
from vj2_ddim_training.data.settings import ManifestSettings
from vj2_ddim_training.data.steps import Steps
from vj2_ddim_training.data.tallies import HABITS, ActionTally, LatentTally
from vj2_ddim_training.data.trajectory_files import (
    TrajectoryFile,
    describe_file,
    find_data_files,
)

__all__ = ["DataDescription", "describe_data", "plot_description"]

MAX_PATHS = 60  # in the picture
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DataDescription:
    """Everything `vj2-ddim data inspect` says."""

    facts: dict[str, Any]  # plain values by name
    notes: list[str]  # what is worth knowing and nothing wrong
    faults: list[str]
    actions: NDArray[np.float32]  # the first of them, for the picture
    norms: FloatArray | None  # of tokens

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**self.facts, "notes": self.notes, "faults": self.faults}


def describe_data(
    path: Path | str,
    spec: ActionSpec,
    settings: ManifestSettings | None = None,
    progress: Progress = lambda done, total: None,
) -> DataDescription:
    """Look at every file of a folder, or at one file. Broken files become faults.

    The fingerprint is of the files that could be read.
    """
    path = Path(path)
    kind, files = find_data_files(path)
    look = _Look(path, kind, spec)
    for number, paths in enumerate(files):
        look.at(paths)
        progress(number + 1, len(files))
    manifest = look.manifest(files, settings or ManifestSettings())
    look.compare()
    actions, latents = look.actions, look.latents
    facts: dict[str, Any] = {"path": str(path), "format": kind}
    if kind == "actions" and actions.num_shared:
        look.faults.append(f"{actions.num_shared} sequences are in more than one file")
    there = [each for paths in files for each in paths if each.exists()]
    facts |= {"num_files": len(files), "num_bytes": sum(each.stat().st_size for each in there)}
    if kind != "actions":
        facts |= _counts(look.described.values())
        facts["shapes"] = {str(list(shape)): num for shape, num in look.shapes.most_common()}
        facts |= {"types": dict(look.types.most_common()), "embeddings": latents.to_dict()}
        facts["layer_normed"] = manifest.layer_normed if manifest else None
    facts |= {"splits": look.splits, "sequence_length": spec.length, "rate_hz": spec.rate_hz}
    facts |= {**actions.to_dict(), "data_fingerprint": fingerprint_files(look.read)}
    return DataDescription(facts, look.notes, look.faults, actions.kept, latents.norms)


def _counts(files: Collection[TrajectoryFile]) -> dict[str, int]:
    return {
        "num_trajectories": sum(file.num_trajectories for file in files),
        "num_transitions": sum(file.num_trajectories * (file.num_steps - 1) for file in files),
    }


class _Look:
    """What was seen so far of a data set."""

    def __init__(self, path: Path, kind: str, spec: ActionSpec) -> None:
        self.path, self.kind, self.spec = path, kind, spec
        self.actions, self.latents = ActionTally(spec), LatentTally()
        self.described: dict[tuple[Path, ...], TrajectoryFile] = {}
        self.shapes: Counter[tuple[int, ...]] = Counter()
        self.types: Counter[str] = Counter()
        self.splits: dict[str, dict[str, int]] = {}
        self.read: list[Path] = []
        self.faults: list[str] = []
        self.notes: list[str] = []

    def at(self, paths: tuple[Path, ...]) -> None:
        """Look at one file, or one pair."""
        name = paths[0].name
        try:
            if self.kind == "actions":
                actions, tail = read_action_file(paths[0], self.spec)
                self.actions.add(actions)
                if tail:
                    self.faults.append(tail_fault(name, tail, self.spec))
            else:
                self._at_trajectories(paths)
            self.read += paths
        except DataError as error:
            for each in paths:
                error = DataError(str(error).replace(escaped(str(each)), escaped(each.name), 1))
            self.faults.append(str(error))
        for fault in self.actions.faults_of_file():
            habit = self.kind != "actions" and any(habit in fault for habit in HABITS)
            (self.notes if habit else self.faults).append(f"{paths[-1].name}: {fault}")

    def _at_trajectories(self, paths: tuple[Path, ...]) -> None:
        file = describe_file(paths, self.spec)
        self.described[paths] = file
        self.shapes[(file.num_steps, *file.embedding_shape)] += 1
        for name, array in zip(("embeddings", "actions"), file.arrays, strict=True):
            self.types[f"{name} {'bfloat16' if array.bfloat16 else array.dtype}"] += 1
        if any(_slow(array) for array in file.arrays):
            self.notes.append(
                f"{paths[0].name}: is compressed so that large parts are read for every step; "
                f"`vj2-ddim data convert` writes files of which single steps are read"
            )
        with readable(file.paths[0], DataError):
            embeddings, actions = map(Steps, file.arrays)
        for part in actions.parts((self.spec.action_block, self.spec.num_channels)):
            self.actions.add(part)
        bad = sum(self.latents.add(part) for part in embeddings.parts(file.embedding_shape))
        if bad:
            total = file.num_trajectories * file.num_steps
            self.faults.append(
                f"{paths[0].name}: {bad} of {total} states hold NaN or infinite values"
            )

    def manifest(
        self, files: list[tuple[Path, ...]], settings: ManifestSettings
    ) -> Manifest | None:
        """Read the splits, and what it says of the latents."""
        folder = self.path if self.path.is_dir() else self.path.parent
        if settings.manifest is None and folder != self.path:
            return None
        try:
            manifest = read_manifest(folder, settings.manifest)
            by_split = files_by_split(manifest, folder, files) if manifest else {}
        except DataError as error:
            self.faults.append(str(error))
            return None
        for split, members in by_split.items():
            found = [self.described[paths] for paths in members if paths in self.described]
            self.splits[split] = {"num_files": len(members)}
            if self.kind != "actions":
                self.splits[split] |= _counts(found)
        if manifest and (left := len(files) - sum(map(len, by_split.values()))):
            self.notes.append(f"{manifest.path.name}: {left} files are in no split")
        self._compare_norm(None if manifest is None else manifest.layer_normed)
        return manifest

    def _compare_norm(self, recorded: bool | None) -> None:
        """What is recorded of layer norm against what the numbers say."""
        if not self.latents.num_tokens:
            return
        found = self.latents.looks_normed
        words = "mean 0 and std 1 in every token" if found else "tokens of another mean or std"
        if recorded is None:
            self.notes.append(
                f"nothing records whether embeddings were layer-normed; they have {words}. Say it "
                f"with `vj2-ddim data split --{'' if found else 'not-'}layer-normed`"
            )
        elif recorded != found:
            self.faults.append(
                f"the manifest says layer_normed {str(recorded).lower()}, and embeddings have "
                f"{words}"
            )

    def compare(self) -> None:
        """Files that do not go with the others."""
        sizes = Counter(file.embedding_shape for file in self.described.values())
        if len(sizes) > 1:
            usual = sizes.most_common(1)[0][0]
            self.faults += [
                f"{paths[0].name}: embeddings are {list(file.embedding_shape)} (N, D), most are "
                f"{list(usual)}"
                for paths, file in self.described.items()
                if file.embedding_shape != usual
            ]


def _slow(array: StoredArray | Hdf5Array) -> bool:
    return array.slow if isinstance(array, Hdf5Array) else array.compressed


def plot_description(description: DataDescription, spec: ActionSpec) -> Figure:
    """Draw what `describe_data` found; panels without anything to show stay empty."""
    norms = description.norms
    rows = 2 if norms is None else 3
    figure = Figure(figsize=(11, 4 * rows), layout="constrained")
    paths, durations, types, timeline, *latents = figure.subplots(rows, 2).flat
    facts = description.facts
    figure.suptitle(as_label(f"{facts['path']}: {facts['num_sequences']} sequences"))
    actions = description.actions
    if spec.press_channel is not None and len(spec.coordinate_indices) == 2:
        draw_paths(paths, actions[:MAX_PATHS], spec)
    paths.set_title(f"the first {min(MAX_PATHS, len(actions))} gestures on the screen")
    durations.set(title="press duration", xlabel="steps", ylabel="gestures")
    if found := facts["durations"]:
        edges = np.array(found["edges"])
        durations.bar(edges[:-1], found["counts"], np.diff(edges), align="edge")
    types.bar(list(facts["gesture_types"]), list(facts["gesture_types"].values()))
    types.set(title="gesture types", ylabel="gestures")
    if spec.press_channel is not None and len(actions):
        down = pressed(actions, spec).astype(np.float64)
        extent = (0.0, spec.length / spec.rate_hz, len(down), 0.0)
        look: Any = {"aspect": "auto", "cmap": "Greys", "vmin": 0, "vmax": 1}
        timeline.imshow(down, extent=extent, interpolation="nearest", **look)
    timeline.set(title="pressed (dark) over time", xlabel="seconds", ylabel="sequence")
    if norms is not None:
        _draw_norms(figure, latents, norms)
    return figure


def _draw_norms(figure: Figure, axes: Sequence[Any], norms: FloatArray) -> None:
    """Heat maps of the norms of tokens, and of how they change from one state to the next."""
    titles = "norm of each token", "its change from the state before"
    for axis, title, values in zip(axes, titles, (norms, np.diff(norms, axis=0)), strict=True):
        axis.set(title=f"{title}, the first {len(norms)} states", xlabel="token", ylabel="state")
        if values.size:
            image = axis.imshow(values, aspect="auto", interpolation="nearest", cmap="viridis")
            figure.colorbar(image, ax=axis, shrink=0.8)

"""A run's folder, and what is logged there: one run at a time, nothing overwritten by accident.

```
RUN/
├── config.yaml       every setting: `vj2-ddim train --config` repeats the run
├── run.json          its data, its judge, and its name at Weights & Biases
├── checkpoint.pt     the model, and all that resuming needs
├── best.pt           the epoch with the highest success, or with the lowest validation loss
├── epoch_0010.pt     where each so many epochs are kept
├── report.html       all of it as one page, written anew after every validation
├── metrics.jsonl     one line an epoch
├── steps.jsonl       one line every `log_every` steps
├── pictures/         epoch_0010_sequences.png, epoch_0010_noise.png, ...
└── wandb/            the Weights & Biases run, unless it is disabled
```
"""

import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from vj2_ddim_plugin.cli.pictures import image_of, save_figure
from vj2_ddim_plugin.errors import CheckpointError, ConfigError
from vj2_ddim_plugin.files import atomic_path, naming, read_json, require_regular_file, write_json
from vj2_ddim_training.config import TrainingConfig
from vj2_ddim_training.processes import locked

__all__ = ["RunFolder", "Tracker", "finite", "most_telling", "read_lines"]

logger = logging.getLogger(__name__)


class RunFolder:
    """Paths of one run."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.checkpoint, self.best = self.folder / "checkpoint.pt", self.folder / "best.pt"
        self.metrics, self.pictures = self.folder / "metrics.jsonl", self.folder / "pictures"
        self.identity, self._lock = self.folder / "run.json", self.folder / "run.lock"
        self.config, self.report = self.folder / "config.yaml", self.folder / "report.html"
        self.steps = self.folder / "steps.jsonl"
        self.told = ""  # what `config` holds, likewise
        self.begun = False  # what is in the folder is of this run
        self.known: dict[str, Any] = {}  # what `identity` holds, or will once there is a checkpoint

    def of_epoch(self, epoch: int) -> Path:
        """The checkpoint that is kept of an epoch."""
        return self.folder / f"epoch_{epoch:04d}.pt"

    @contextmanager
    def claim(self, *, resume: bool, overwrite: bool) -> Iterator[None]:
        """Hold the folder while training; a run to be replaced stays until `begin`."""
        if resume and overwrite:
            raise ConfigError(
                f"{self.folder}: resume=True goes on with the run that is there, overwrite=True "
                f"replaces it; give one of them"
            )
        if resume:
            self.require_run()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self._lock, "save_dir"):
                if self.checkpoint.exists() and not (resume or overwrite):
                    raise ConfigError(
                        f"{self.folder} already holds a run. Go on with resume=True, replace it "
                        f"with overwrite=True, or give another save_dir"
                    )
                for name in ("checkpoint.pt", "best.pt", "metrics.jsonl", "run.json", "epoch_"):
                    for scratch in self.folder.rglob(f".{name}*-*"):  # of a process that was killed
                        shutil.rmtree(scratch, ignore_errors=True)
                if not self.checkpoint.exists():
                    self.record()
                yield
        except OSError as error:
            if not str(error.filename).startswith(str(self.folder)):
                raise
            raise ConfigError(
                f"{self.folder} cannot hold a run ({error}). Free some space there, or give "
                f"another save_dir; what was kept before is untouched"
            ) from error

    def require_run(self) -> None:
        """Refuse to go on with what is not there."""
        if not self.checkpoint.is_file():
            raise ConfigError(f"{self.checkpoint}: nothing to resume; leave out resume=True")

    def record(self) -> None:
        """Write what is known of the run."""
        if self.known:
            write_json(self.identity, self.known)
        if self.told:
            with atomic_path(self.config) as temporary:
                temporary.write_text(self.told, encoding="utf-8")

    def begin(self, resumed: bool = False) -> None:
        """The run has its first checkpoint: what is left of an earlier one in the folder goes."""
        if self.begun:
            return
        self.begun = True
        old = self.read_identity().get("tracker")
        self.record()
        others = [*self.folder.glob("epoch_*.pt"), *self.pictures.glob("epoch_*.png")]
        others += [] if resumed else [self.report, self.steps]
        for path in (self.best, self.metrics, *others):
            path.unlink(missing_ok=True)
        if old and old != self.known.get("tracker"):
            for run in (self.folder / "wandb").glob(f"*run-*-{old['id']}"):
                shutil.rmtree(run, ignore_errors=True)

    def read_identity(self) -> dict[str, Any]:
        """What `run.json` holds; nothing where a run of an earlier version has none."""
        if not self.identity.exists():
            return {}
        found = read_json(self.identity, CheckpointError)
        data, tracker = found.get("data"), found.get("tracker") or {"id": "", "project": ""}
        if not (
            isinstance(data, dict)
            and isinstance(tracker, dict)
            and set(tracker) == {"id", "project"}
        ):
            raise CheckpointError(
                f"{self.identity}: does not say what data the run had. Delete it, and give "
                f"data_dir, val_data_dir and all else that is told of the data"
            )
        return found


class Tracker:
    """Logs one run."""

    def __init__(
        self,
        folder: RunFolder,
        settings: Mapping[str, Any],
        training: TrainingConfig,
        resume: bool = False,
    ) -> None:
        self._folder, self._wandb = folder, None
        self._training, self._early = training, list[bytes]()
        self.report: Any = None  # a `Report`, where one is to be written
        if resume:
            folder.known["tracker"] = folder.read_identity().get("tracker")
        if training.wandb_mode != "disabled":
            self._wandb = self._start(settings, training, folder.known.get("tracker"))
            folder.known["tracker"] = {"id": self._wandb.id, "project": training.wandb_project}
            if not folder.checkpoint.exists():
                folder.record()

    def _start(self, settings: Mapping[str, Any], training: TrainingConfig, before: Any) -> Any:  # noqa: ANN401
        """Weights & Biases' run: the one of `before`, or a new one."""
        import wandb

        same = before and before["project"] == training.wandb_project
        try:
            os.fspath(self._folder.folder).encode()  # it must be UTF-8 for W&B
            return wandb.init(
                project=training.wandb_project,
                name=settings.get("run_name"),
                id=before["id"] if same else None,
                resume="allow" if same else None,
                config={
                    key: str(of) if isinstance(of, Path) else of for key, of in settings.items()
                },
                dir=str(self._folder.folder),
                mode=training.wandb_mode,  # type: ignore[arg-type]
                settings=wandb.Settings(silent=True),
            )
        except Exception as error:  # its own kinds, of the network and of the disk
            raise _refused(training.wandb_mode, error) from error

    @staticmethod
    def require_login(training: TrainingConfig) -> None:
        """Before anything is read or written: what `wandb_mode='online'` needs."""
        if training.wandb_mode != "online":
            return
        import wandb

        try:
            wandb.login(verify=False)  # asks, where there is a terminal
        except Exception as error:
            raise _refused("online", error) from error

    @property
    def mirrored(self) -> bool:
        """Whether Weights & Biases is told too."""
        return self._wandb is not None

    def log(self, epoch: int, step: int, numbers: Mapping[str, Any]) -> None:
        """One epoch's numbers; nested ones become `a/b/c` for Weights & Biases.

        There the measures of the most telling protocol are `val/*` besides, as the original script
        has them.
        """
        record = {"epoch": epoch, "step": step, **numbers}
        self._append(self._folder.metrics, record)
        if self._wandb is not None:
            of_protocol = most_telling(numbers)[1]
            validated = {"loss": numbers.get("validation_loss"), **of_protocol}
            said = {"val": validated} if of_protocol else {}
            self._wandb.log(_flatten({**record, **said}), step=step)
        if self.report is not None and "validation_loss" in numbers:
            self.report.write()

    def log_step(self, step: int, numbers: Mapping[str, Any]) -> None:
        """One step's numbers, which are `train/*` for Weights & Biases."""
        record = {"step": step, "train": numbers}
        if self._folder.begun:
            self._append(self._folder.steps, record)
        else:  # what lies there may be of a run that is to be replaced
            self._early.append(f"{json.dumps(finite(record))}\n".encode())
        if self._wandb is not None:
            self._wandb.log(_flatten({"train": numbers}), step=step)

    def _append(self, path: Path, record: Mapping[str, Any]) -> None:
        with naming(path), open(path, "ab") as stream:
            stream.write(f"{json.dumps(finite(record))}\n".encode())
        if self._early and self._folder.begun:
            lines, self._early = self._early, []
            with naming(self._folder.steps), open(self._folder.steps, "ab") as stream:
                stream.writelines(lines)

    def forget_after(self, epoch: int, step: int = 0) -> None:
        """Drop the lines of later epochs and steps, of a run that died before its checkpoint."""
        for path, name, last in (
            (self._folder.metrics, "epoch", epoch),
            (self._folder.steps, "step", step),
        ):
            if not path.exists():
                continue
            lines = require_regular_file(path, CheckpointError).read_bytes().splitlines()
            kept = [line for line in lines if _number_in(line, name) <= last]
            if name == "epoch" and len(kept) < epoch:
                logger.warning("%s: of %d epochs, %d are there", path, epoch, len(kept))
            with atomic_path(path) as temporary:
                temporary.write_bytes(b"".join(line + b"\n" for line in kept))

    def picture(self, name: str, epoch: int, step: int, figure: Figure) -> None:
        """One picture, as a file and for Weights & Biases."""
        path = self._folder.pictures / f"epoch_{epoch:04d}_{name}.png"
        save_figure(figure, path)
        if self._wandb is not None:
            import wandb

            self._wandb.log({f"pictures/{name}": wandb.Image(str(path))}, step=step)

    def table(self, name: str, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """A table for Weights & Biases, whose cells may be figures."""
        if self._wandb is None:
            return
        import wandb

        def cell(value: Any) -> Any:  # noqa: ANN401
            return wandb.Image(image_of(value)) if isinstance(value, Figure) else value

        columns = list(rows[0])
        data = [[cell(row[column]) for column in columns] for row in rows]
        self._wandb.log({name: wandb.Table(columns=columns, data=data)}, step=step)

    def keep(self, kind: str, path: Path) -> str:
        """Keep a file or a folder as an artifact of the Weights & Biases run; its name there."""
        import wandb

        run: Any = self._wandb
        artifact = wandb.Artifact(f"{kind}-{run.id}", type="model")
        (artifact.add_dir if path.is_dir() else artifact.add_file)(str(path))
        run.log_artifact(artifact)
        return str(artifact.name)

    def close(self, error: BaseException | None = None, ended: str = "") -> None:
        """The run ended, well, early, or by an error: say so, in the report too."""
        if self._wandb is not None:
            if error is None and self._training.wandb_artifact:
                self.keep("checkpoint", self._folder.checkpoint)
            self._wandb.finish(exit_code=int(error is not None))
        if self.report is None:
            return
        if error is None:
            self.report.write(f"ended early: {ended}" if ended else "done")
        elif self._folder.begun or not self._folder.checkpoint.exists():  # not another's
            told = isinstance(error, KeyboardInterrupt | SystemExit)
            why = f"failed: {error or type(error).__name__}"
            with suppress(OSError):  # the error matters more
                self.report.write("stopped: --resume goes on from here" if told else why)


def most_telling(line: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The protocol that a planner uses, or the nearest to it, and its measures at the first N."""
    for protocol in ("conditional", "denoise@0.5"):
        if isinstance(line.get(protocol), Mapping):
            return protocol, next(iter(line[protocol].values()))
    return "", {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of metrics; none where it is not there, without one that is cut off."""
    lines = path.read_bytes().splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if _number_in(line, "step") < math.inf]


def _refused(mode: str, error: Exception) -> ConfigError:
    """What Weights & Biases says, in one line."""
    said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return ConfigError(
        f"wandb_mode={mode!r} cannot start: {said}. Log in by 'wandb login' or WANDB_API_KEY, or "
        f"use wandb_mode='offline' or wandb_mode='disabled'"
    )


def _number_in(line: bytes, name: str) -> float:
    """The epoch or step of one line of metrics; a line cut off in the middle belongs to none."""
    try:
        return float(json.loads(line)[name])
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return math.inf


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = isinstance(value, Mapping)
        flat |= _flatten(value, f"{prefix}{key}/") if inner else {f"{prefix}{key}": value}
    return flat


def finite(value: Any) -> Any:  # noqa: ANN401
    """`value` with None for what is not finite: Python would write `NaN`, which is no JSON."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

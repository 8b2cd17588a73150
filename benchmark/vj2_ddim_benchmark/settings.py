"""Every setting of the benchmark's commands, each declared once; nothing here needs torch or numpy.

Those of the trained parts are beside what they are of.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from vj2_ddim_plugin.errors import ConfigError
from vj2_ddim_plugin.settings import Settings, setting

SPLITS = ("train", "validation", "test")
MIN_PAGE_SIZE, MAX_PAGE_SIZE = 32, 320  # pixels of a browser's pictures
TUNED_DIR = Path(__file__).parent / "tuned"
SHIPPED_PAGES = (
    Path(__file__).parent / "assets" / "pages"
)  # the trained parts for a browser's pages
AMORTISED = ("regression", "gaussian", "inverse-dynamics", "mixture", "mip", "flow")
CHAIN_PLANNERS = (
    "ddim-16-robust-2", "ddim-16", "ddim-1", "regression", "gradient-descent-adam-10-x16",
    "gesture-cem-8x16",
)  # fmt: skip


@dataclass(frozen=True)
class RaceSettings(Settings):
    """What is compared, and how."""

    planners: tuple[str, ...] = setting((), "Who races, with commas between; all unless told.")
    budget_ms: tuple[float, ...] = setting(
        (), "Deadlines of a plan, with commas between; full plans unless told.", above=0
    )
    full_plan: bool = setting(False, "With deadlines: also race without.")
    num_problems: int | None = setting(None, "Problems; 600, or 60 if quick.", low=1)
    chains: int | None = setting(None, "Chains of gestures; 150, or 10 if quick.", low=0)
    chain_planners: tuple[str, ...] = setting(CHAIN_PLANNERS, "Who goes through chains.")
    quick: bool = setting(False, "Fewer problems, chains and planners.")
    split: str = setting("test", "Whose screens.", choices=SPLITS)
    seed: int = setting(0, "Of the problems and of the planners' randomness.", low=0)
    threads: int = setting(2, "Threads of torch and of ONNX Runtime alike.", low=1, high=1024)
    workers: int = setting(1, "Problems solved at once, each in a process.", low=1, high=1024)
    ray: str | None = setting(
        None, "Solve them on this Ray cluster: its address, auto, or local to start one."
    )
    world_model: Path | None = setting(None, "Another world model than the shipped.")
    bundle: Path | None = setting(None, "Another denoiser than the shipped.")
    regression: Path | None = setting(None, "Another amortised regression than the shipped.")
    gaussian: Path | None = setting(None, "Another amortised Gaussian than the shipped.")
    student: Path | None = setting(None, "Another student's bundle than the shipped.")
    latents: Path | None = setting(None, "The denoiser's training data, for retrieval.")
    tuned: Path = setting(TUNED_DIR, "The folder of the recorded sweeps.")

    @property
    def budgets(self) -> tuple[float | None, ...]:
        """Deadlines in ms, each once, the smallest first; None, a planner's full plan, last."""
        limits: list[float | None] = [*sorted(set(self.budget_ms))]
        return tuple([*limits, None] if self.full_plan or not limits else limits)

    @property
    def total_problems(self) -> int:
        """How many problems are asked for."""
        return self.num_problems or (60 if self.quick else 600)

    @property
    def total_chains(self) -> int:
        """How many chains."""
        return (10 if self.quick else 150) if self.chains is None else self.chains


@dataclass(frozen=True)
class TuneSettings(Settings):
    """What planners are tuned on."""

    world_model: Path | None = setting(None, "Another world model than the shipped.")
    planners: tuple[str, ...] = setting((), "Names with commas between; all unless told.")
    num_problems: int = setting(100, "Validation problems.", low=1)
    seed: int = setting(0, "Of the problems and of the planners' randomness.", low=0)
    threads: int = setting(2, "Threads of torch and of ONNX Runtime alike.", low=1, high=1024)
    quick: bool = setting(False, "Only planners of quick runs.")


@dataclass(frozen=True)
class LatencySettings(Settings):
    """How plans are timed."""

    num_plans: int = setting(200, "Plans of each.", low=1)
    num_inference_steps: int = setting(10, "DDIM steps of both.", low=1)
    threads: int = setting(2, "Threads of torch and of ONNX Runtime alike.", low=1, high=1024)


@dataclass(frozen=True)
class ReadingSpeedSettings(Settings):
    """What is read; V-JEPA 2's shapes are the default."""

    num_files: int = setting(4, "HDF5 files.", low=1, option="--files")
    trajectories: int = setting(60, "Trajectories in each.", low=1)
    num_steps: int = setting(8, "States T of each.", low=2, option="--frames")
    num_tokens: int = setting(256, "Tokens N of a state.", low=1, option="--tokens")
    width: int = setting(1024, "Width D of a token.", low=1)
    dtype: str = setting("float16", "How embeddings are stored.", choices=("float16", "float32"))
    batch_size: int = setting(32, "Transitions a batch.", low=1)
    num_batches: int = setting(20, "Batches of each reader.", low=1)
    links: int = setting(20, "Times that each file counts in the training run.", low=1)
    train_steps: int = setting(4, "Steps of the training run.", low=1)
    threads: int = setting(1, "Threads of torch.", low=1, high=1024)
    folder: Path | None = setting(None, "Where the files are made; the system's unless told.")

    @property
    def file_bytes(self) -> int:
        """Bytes of the embeddings of a file."""
        numbers = self.trajectories * self.num_steps * self.num_tokens * self.width
        return numbers * (2 if self.dtype == "float16" else 4)


@dataclass(frozen=True)
class EncoderStudySettings(Settings):
    """How two denoisers are trained, each of which sees screens through another encoder."""

    graph: Path | None = setting(None, "The text detector's graph; that of its package if none.")
    num_trajectories: int = setting(8000, "Touches that each learns from.", low=64)
    steps: int = setting(6000, "Gradient steps of each, rounded up to whole epochs.", low=1)
    num_problems: int = setting(600, "Unseen screens.", low=30)
    threads: int = setting(1, "Threads of torch and of ONNX Runtime alike.", low=1, high=1024)
    seed: int = setting(0, "Of the screens, the weights and the order.", low=0)


@dataclass(frozen=True)
class PressureSettings(Settings):
    """How many plans, and how busy a machine."""

    num_plans: int = setting(300, "Plans of each timed measure.", low=10)
    memory_plans: int = setting(100_000, "Plans of the memory measure.", low=10)
    load: int | None = setting(None, "Busy processes; one a core unless told.", low=0)
    threads: int = setting(1, "Threads of torch and ONNX Runtime.", low=1, high=1024)


@dataclass(frozen=True)
class ServingSettings(Settings):
    """How many plans of how many clients, and how often a replica is killed."""

    num_plans: int = setting(320, "Plans of each timed measure.", low=10)
    num_clients: int = setting(16, "Clients at once.", low=2, high=1024)
    num_turns: int = setting(5, "Times that one client and many take turns.", low=1)
    num_replicas: int = setting(1, "Replicas.", low=1, high=1024)
    kill_every: float | None = setting(
        None, "Then kill a random replica every so many seconds, on average.", above=0
    )
    plans: int = setting(10_000, "Plans meanwhile.", low=1)
    port: int = setting(8123, "Of the server.", low=1, high=65_535)
    threads: int = setting(1, "Threads of ONNX Runtime, here and in replicas.", low=1, high=1024)


@dataclass(frozen=True)
class ScaleSettings(Settings):
    """What is timed beside the predictor, and how often."""

    num_iterations: int = setting(10, "Of gradient descent.", low=1, option="--iterations")
    num_candidates: int = setting(16, "Candidates K of DDIM.", low=1)
    num_inference_steps: int = setting(10, "DDIM steps N.", low=1)
    rows_per_chunk: int = setting(1, "Candidates in one forward pass.", low=1)
    num_turns: int = setting(3, "Times that each pass is timed.", low=1, option="--turns")
    num_plans: int = setting(20, "DDIM plans timed in each turn.", low=1)
    threads: int = setting(1, "Threads of torch and of ONNX Runtime alike.", low=1, high=1024)
    seed: int = setting(0, "Of all weights.", low=0)

    def check(self) -> None:
        """A chunk is no larger than what is ranked."""
        chunk, most = self.rows_per_chunk, self.num_candidates
        if chunk > most:
            raise ConfigError(f"rows_per_chunk must be 1 to num_candidates, {most}; found {chunk}")


@dataclass(frozen=True)
class MadeData(Settings):
    """Gestures to train on: a folder's, or made for it."""

    data_dir: Path | None = setting(None, "Training gestures; made anew unless told.")
    val_data_dir: Path | None = setting(None, "Held-out gestures; told with the others.")
    num_made: int = setting(5000, "Training gestures to make.", low=1)
    num_validation: int = setting(100, "Held-out gestures that are measured.", low=1)
    threads: int = setting(1, "Torch's threads.", low=1, high=1024)
    seed: int = setting(0, "Of gestures, weights and noise.", low=0)

    def check(self) -> None:
        """Both folders, or none."""
        if (self.data_dir is None) != (self.val_data_dir is None):
            raise ConfigError(
                f"data_dir and val_data_dir go together; found {self.data_dir} and "
                f"{self.val_data_dir}"
            )


@dataclass(frozen=True)
class CostSettings(MadeData):
    """How long the original's algorithm is trained, and all beside it."""

    num_sequences: int = setting(640, "Of the training gestures, so many in turns.", low=1)
    num_epochs: int = setting(5, "Of each.", low=1)
    batch_size: int = setting(32, "Of each.", low=1)
    lr: float = setting(1e-3, "The original's learning rate.", above=0.0)
    target_epochs: int = setting(60, "Of dit by its sketch, on all gestures; 0 for none.", low=0)


@dataclass(frozen=True)
class RecreationSettings(MadeData):
    """How long each is trained."""

    num_sequences: int = setting(1000, "Of the training gestures, so many are learned.", low=1)
    num_epochs: int = setting(5, "Of minimal, and of dit on raw gestures.", low=1)
    vae_epochs: int = setting(200, "Of each VAE.", low=1)
    sketch_epochs: int = setting(40, "Of dit by its sketch.", low=1)


@dataclass(frozen=True)
class PredictorSize(Settings):
    """How large; VJ2-GUI's is the default."""

    depth: int = setting(24, "Layers of the predictor.", low=1)
    width: int = setting(1024, "Its width, of latents and inside alike.", low=1)
    num_heads: int = setting(16, "Its attention heads.", low=1, option="--heads")
    num_frames: int = setting(8, "States it sees.", low=1, option="--frames")
    num_tokens: int = setting(2056, "Its tokens: frames x (patches + 1).", low=1, option="--tokens")
    action_width: int = setting(750, "Numbers of an action block, L x A.", low=1)

    def check(self) -> None:
        """Sizes that do not fit one another cannot be built."""
        heads, tokens, frames = self.num_heads, self.num_tokens, self.num_frames
        if self.width % heads:
            raise ConfigError(f"num_heads must divide width; found {heads} and {self.width}")
        if tokens % frames or self.num_patches < 1:
            raise ConfigError(
                f"num_tokens must be num_frames * (patches + 1); found {tokens} for {frames} frames"
            )

    @property
    def num_patches(self) -> int:
        """Patches N of one frame."""
        return self.num_tokens // self.num_frames - 1


@dataclass(frozen=True)
class ComparisonSettings(Settings):
    """How much is compared."""

    num_problems: int = setting(100, "Pairs of start and goal in a manifest.", low=1)
    num_seeds: int = setting(3, "Manifests: the first so many of seeds 0, 1, 42.", low=1, high=3)
    threads: int = setting(1, "Threads of torch and of ONNX Runtime alike.", low=1, high=1024)


PAGES = ("kit", "miniwob")
PAGES_HELP = "Those of the mobile UI kit, or the tasks of MiniWoB++."
TASKS_HELP = "Of MiniWoB++, with commas between; all that are posed unless told."
KINDS_HELP = (
    "Kinds of widgets to aim at, with commas between, on pages that have one; any unless told."
)


@dataclass(frozen=True)
class BrowserCollectSettings(Settings):
    """What is collected, and by how many."""

    newer: ClassVar[Any] = ("kinds",)

    num_trajectories: int = setting(1000, "Pages that are touched.", low=1)
    horizon: int = setting(4, "Action blocks on each.", low=1)
    split: str = setting("train", "Whose pages.", choices=SPLITS)
    seed: int = setting(0, "Of pages and gestures.", low=0)
    size: int = setting(64, "Pixels across a picture.", low=MIN_PAGE_SIZE, high=MAX_PAGE_SIZE)
    processes: int = setting(2, "Browsers, each in a process of its own.", low=1, high=64)
    scripted_share: float = setting(0.7, "Gestures that aim at a widget.", low=0, high=1)
    near_miss_share: float = setting(0.35, "Of these, how many miss.", low=0, high=1)
    pages: str = setting("kit", PAGES_HELP, choices=PAGES)
    tasks: tuple[str, ...] = setting((), TASKS_HELP)
    kinds: tuple[str, ...] = setting((), KINDS_HELP)


@dataclass(frozen=True)
class BrowserFiles(Settings):
    """What some planners on pages need besides a denoiser and a world model."""

    latents: Path | None = setting(None, "The denoiser's training data, where retrieval races.")
    student: Path | None = setting(None, "A student's bundle, where one races.")
    amortised: Mapping[str, str] | None = setting(
        None, "KIND=FILE by `vj2-ddim benchmark amortise`, where such a planner races; repeatable."
    )

    def check(self) -> None:
        """Refuse a kind that there is not, and a file likewise."""
        for kind, path in self.models.items():
            if kind not in AMORTISED:
                raise self.error(f"amortised has {kind!r}; use some of {', '.join(AMORTISED)}")
            if not path.is_file():
                raise self.error(
                    f"amortised {kind}={path}: no such file; make it with "
                    f"`vj2-ddim benchmark amortise {kind} --out {path}`"
                )

    @property
    def models(self) -> dict[str, Path]:
        """Files of amortised models, by kind."""
        return {kind: Path(path) for kind, path in (self.amortised or {}).items()}


NO_FILES = BrowserFiles()


@dataclass(frozen=True)
class BrowserRaceSettings(Settings):
    """Who plans on whose pages."""

    planners: tuple[str, ...] = setting(
        ("ddim-16", "ddim-1", "gradient-descent-adam-10-x16", "gesture-cem-8x16",
         "random-gestures-16"),
        "Names with commas between.",
    )  # fmt: skip
    num_problems: int = setting(100, "Pages, one gesture from their goal.", low=1)
    num_chains: int = setting(
        0, "Pages of each length, two to four gestures from their goal.", low=0, option="--chains"
    )
    chain_planners: tuple[str, ...] = setting(
        (), "Of these, with commas between, who plans them again and again; the first unless told."
    )
    split: str = setting("test", "Whose pages.", choices=SPLITS)
    seed: int = setting(0, "Of pages and planners.", low=0)
    threads: int = setting(1, "Of torch and ONNX Runtime.", low=1, high=1024)
    pages: str = setting("kit", PAGES_HELP, choices=PAGES)
    tasks: tuple[str, ...] = setting((), TASKS_HELP)

    def check(self) -> None:
        """Refuse chains of planners that do not race, and chains of what has none."""
        if self.num_chains and self.pages != "kit":
            raise self.error(f"num_chains must be 0 where pages is {self.pages!r}")
        if strangers := set(self.chain_planners) - set(self.planners):
            raise self.error(
                f"chain_planners must be among planners; found {', '.join(sorted(strangers))}"
            )


@dataclass(frozen=True)
class BrowserTuneSettings(Settings):
    """What planners are tuned on."""

    planners: tuple[str, ...] = setting(
        ("ddim-16", "ddim-1", "gradient-descent-adam-10-x16", "gesture-cem-8x16"),
        "Names with commas between.",
    )
    num_problems: int = setting(60, "Validation pages, one gesture from their goal.", low=1)
    seed: int = setting(0, "Of pages and planners.", low=0)
    threads: int = setting(1, "Of torch and ONNX Runtime.", low=1, high=1024)


@dataclass(frozen=True)
class BrowserWatchSettings(Settings):
    """Who is watched, on whose pages."""

    planner: str = setting("ddim-16", "Its name, as of those that race.")
    num_goals: int = setting(4, "Pages, each with a goal.", low=1, option="--goals")
    num_gestures: int = setting(
        1, "How many gestures a goal is away.", low=1, high=4, option="--gestures"
    )
    split: str = setting("test", "Whose pages.", choices=SPLITS)
    seed: int = setting(0, "Of pages and planner.", low=0)
    size: int = setting(320, "Pixels across each picture.", low=160, high=MAX_PAGE_SIZE)
    threads: int = setting(1, "Of torch and ONNX Runtime.", low=1, high=1024)


@dataclass(frozen=True)
class BrowserCheckSettings(Settings):
    """How often the same is done, and what else is measured."""

    repeats: int = setting(
        10, "Of a gesture on every kind of widget in each theme, or on every task.", low=1
    )
    seed: int = setting(0, "Of pages and gestures.", low=0)
    size: int = setting(128, "Pixels across a picture.", low=MIN_PAGE_SIZE, high=MAX_PAGE_SIZE)
    num_trajectories: int = setting(100, "Collected to measure speed; 0: not measured.", low=0)
    horizon: int = setting(4, "Action blocks on each.", low=1)
    pages: str = setting("kit", PAGES_HELP, choices=PAGES)

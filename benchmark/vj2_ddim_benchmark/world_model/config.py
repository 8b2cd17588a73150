"""`WorldModelConfig`: every number that decides what a world model is and how it is trained."""

from dataclasses import dataclass
from typing import Any, ClassVar

from vj2_ddim_plugin.settings import Settings, setting

DETECTOR_STRIDE = 8  # pixels across a cell of the text detector


@dataclass(frozen=True)
class WorldModelConfig(Settings):
    """How a world model is made; the defaults train in 50 minutes on one core."""

    num_trajectories: int = setting(40000, "Training trajectories to collect.", low=1)
    horizon: int = setting(4, "Action blocks in each trajectory.", low=1)
    encoder: str = setting(
        "patches", "What sees a picture: its own patches, or a text detector that others trained.",
        choices=("patches", "text-detector"),
    )  # fmt: skip
    screen_size: int = setting(64, "Width and height of the screen, in pixels.", low=1)
    patch_size: int = setting(8, "Side of the encoder's patches, in pixels.", low=1)
    token_dim: int = setting(32, "D, the numbers in a token.", low=1)
    noise_floor: float = setting(0.5, "Share of the top variance that whitening adds.", low=0)
    layer_norm: bool = setting(False, "Layer-normalise tokens, as VJ2-GUI does.")
    action_block: int = setting(250, "Actions in one step.", low=1)
    width: int = setting(64, "Width of the predictor's hidden tokens.", low=1)
    num_layers: int = setting(2, "Its layers over the screen, between those nearby.", low=1)
    num_heads: int = setting(4, "Attention heads in each.", low=1)
    num_knots: int = setting(5, "Positions along the press that the predictor sees.", low=1)
    num_epochs: int = setting(6, "Passes over the transitions.", low=1, option="--epochs")
    batch_size: int = setting(32, "Transitions in one gradient step.", low=1)
    learning_rate: float = setting(2e-3, "Peak of its course, up and down to zero.", above=0)
    weight_decay: float = setting(0.01, "AdamW's.", low=0)
    max_grad_norm: float = setting(1.0, "Gradients are clipped to this norm.", above=0)
    change_weight: float = setting(1.0, "Weight of the tokens that change in the loss.", low=0)
    num_moved: int = setting(
        0, "Copies of each trajectory, moved over the screen, that training also sees.", low=0
    )
    unchanged_share: float = setting(
        0.6, "Share of the transitions that change nothing that training looks at.", low=0
    )
    adversarial_radius: float = setting(
        0.0, "Move touches against the predictor by so many screens: smoother gradients.", low=0
    )
    cost_kind: str = setting("mse", "Distance of prediction to goal.", choices=("mse", "l1"))
    num_report_problems: int = setting(240, "Validation problems in the report.", low=1)
    seed: int = setting(0, "Of the data, the weights and the order of the batches.", low=0)

    newer: ClassVar[Any] = ("encoder", "num_moved")

    def check(self) -> None:
        """Refuse parts that do not divide the whole."""
        if self.encoder == "text-detector" and self.patch_size % DETECTOR_STRIDE:
            raise self.error(
                f"patch_size must be a multiple of {DETECTOR_STRIDE} with the text detector, which "
                f"has a cell every {DETECTOR_STRIDE} pixels; found {self.patch_size}"
            )
        for part, whole in (("patch_size", "screen_size"), ("num_heads", "width")):
            found = getattr(self, part), getattr(self, whole)
            if found[1] % found[0]:
                raise self.error(f"{part} must divide {whole}; found {found[0]} and {found[1]}")

    @classmethod
    def quick(cls) -> "WorldModelConfig":
        """Trains in under a minute, for demonstrations."""
        return cls(
            num_trajectories=5000, num_epochs=2, unchanged_share=0.3, learning_rate=4e-3,
            num_report_problems=60,
        )  # fmt: skip

    @property
    def noticed(self) -> float:
        """A token that moves further than this, in any number, has changed.

        The text detector averages over the picture, so a little of any change is in every token.
        """
        return 1e-4 if self.encoder == "patches" else 0.4

    @property
    def grid(self) -> int:
        """Tokens along each side of the screen."""
        return self.screen_size // self.patch_size

    @property
    def num_tokens(self) -> int:
        """N, the tokens of one screen."""
        return self.grid**2

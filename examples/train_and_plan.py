"""Gestures, a small denoiser, a bundle and a plan, in one Python process; under a minute."""

import tempfile
from pathlib import Path

import numpy as np

from vj2_ddim_export.export import export_bundle
from vj2_ddim_plugin import DDIMOptimizer, PlanningProblem
from vj2_ddim_training.config import ModelConfig, RunSettings, TrainingConfig
from vj2_ddim_training.data.generate import generate_gestures
from vj2_ddim_training.run import train_run


def main() -> None:
    """Train on 400 gestures, export, plan from a sketch."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for seed, split in enumerate(("train", "val")):
            gestures = generate_gestures(400, rng=np.random.default_rng(seed))
            (root / split).mkdir()
            np.save(root / split / "gestures_actions.npy", gestures.reshape(-1, 3))
        settings = RunSettings(
            data_dir=root / "train",
            val_data_dir=root / "val",
            save_dir=root / "run",
            model=ModelConfig(d_model=32, num_layers=1, nhead=2),
            training=TrainingConfig(
                num_epochs=40, lr=3e-3, evaluate_every=40, num_threads=1, wandb_mode="disabled"
            ),
        )
        train_run(settings)
        export_bundle(root / "run" / "checkpoint.pt", root / "bundle")
        sketch = np.array([[0.2, 0.3, 0.8, 0.3, 0.1, 0.3]], np.float32)
        with DDIMOptimizer.from_bundle(root / "bundle", num_threads=1) as optimizer:
            plan = optimizer.optimize(PlanningProblem({"sketch": sketch})).actions[0]
    down = plan[:, 2] > 0.5
    print(f"asked: from {sketch[0, :2]} to {sketch[0, 2:4]}")
    print(f"planned: from {plan[down][0, :2].round(2)} to {plan[down][-1, :2].round(2)}")


if __name__ == "__main__":
    main()

"""A checkpoint of a model that was not trained."""

from vj2_ddim_training.checkpoint import Checkpoint, save_checkpoint


def save(model, folder):
    checkpoint = Checkpoint(
        model, model.state_dict(), {}, "f" * 16, {}, {"made_by": "a test", "layer_normed": True}
    )
    save_checkpoint(checkpoint, folder / "checkpoint.pt")
    return folder / "checkpoint.pt"

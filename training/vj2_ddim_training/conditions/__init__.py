"""SHIM: moved to vj2_ddim_training.condition_encoders."""

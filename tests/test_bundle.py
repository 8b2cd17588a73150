"""SHIM: moved to builders.bundles."""

from builders.bundles import (  # noqa: F401  # noqa: F401
    LATENTS,
    PARITY,
    SCHEDULE,
    SPEC,
    edit,
    make_bundle,
    save_condition,
    save_denoiser,
    save_graph,
    tensor,
)

"""`vj2-ddim benchmark`: its commands, each imported only when called."""

from __future__ import annotations

from vj2_ddim_plugin.cli.app import Command, lazy_app

__all__ = ["COMMANDS", "app"]

HERE, INSTALL = "vj2_ddim_benchmark", "vj2-ddim-benchmark"
COMMANDS = {
    name: Command(f"{HERE}.{target}", INSTALL, words)
    for name, target, words in (
        ("run", "benchmark:run", "Race planners on unseen touch screens, and write a report."),
        ("report", "report.page:report", "Rebuild a run's tables and pictures."),
        ("tune", "tuning:tune", "Tune the planners on validation screens."),
        ("world", "world_model.commands:app", "Collect data and train the world model."),
        ("assets", "assets.build:app", "Make the trained parts anew, or other denoisers."),
        ("latency", "timing.latency:latency", "Time a plan against the original's sampler."),
        ("pressure", "timing.pressure:pressure", "Overhead, deadlines under load, memory."),
        ("scale", "timing.scale:scale", "Time a plan through a predictor of VJ2-GUI's size."),
        ("two-room", "two_room.compare:two_room", "Compare in stable-worldmodel's own world."),
    )
}

app = lazy_app(COMMANDS, help="Compare planners on unseen touch screens.")

"""The touch screen world, the planners side by side, the report. Needs the `benchmark` extra."""

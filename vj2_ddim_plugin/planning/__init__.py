"""One planning call: candidates, their ranking, deadlines, constraints and failures."""

__all__: list[str] = []

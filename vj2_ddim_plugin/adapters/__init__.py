"""One file per host planner; torch and the host are imported only inside their functions."""

__all__: list[str] = []

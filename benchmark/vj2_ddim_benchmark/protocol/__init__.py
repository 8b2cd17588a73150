"""How planners are compared: the same problems, recorded settings, intervals with every figure."""

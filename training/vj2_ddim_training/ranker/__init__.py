"""A small network that predicts the planner's cost, so that it is asked of few candidates."""

"""The race: planners in turn on the same problems, and a folder of what came of it."""

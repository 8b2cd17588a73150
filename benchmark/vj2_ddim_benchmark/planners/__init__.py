"""Planners behind one seam: what each is, and the host that asks any of them for a plan."""

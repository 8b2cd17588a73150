"""Chains: goals of two to five gestures, where the host plans anew after each of them."""

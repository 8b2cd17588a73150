"""A small JEPA-style world model of the touch screen: frozen encoder, learned predictor, cost."""

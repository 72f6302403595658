"""Training of AnomalyNCD in plain torch: sources of views, the trained module, and the training loop."""

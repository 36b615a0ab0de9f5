"""Second stage of study 7: rewards of runs with OCC; only if the gradient stage says that something could show."""

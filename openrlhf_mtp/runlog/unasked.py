"""The mark of a token whose log-prob the engine was not asked for, between engines and controller."""

UNASKED = 1.0
"""In a log-prob's place, and none itself: log-probs are at most 0. It is finite, so that a NaN still is a fault."""

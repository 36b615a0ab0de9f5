"""Heads on disk: making one for a policy, reading and writing every format, exporting."""

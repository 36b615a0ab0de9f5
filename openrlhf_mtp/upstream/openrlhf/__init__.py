"""Replacements in OpenRLHF, and readers of its source."""

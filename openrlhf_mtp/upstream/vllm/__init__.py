"""Replacements in vLLM."""

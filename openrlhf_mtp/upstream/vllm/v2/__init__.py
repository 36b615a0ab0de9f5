"""Replacements in vLLM's V2 model runner, which it takes by itself where Triton works.

docs/replacements.md says for each replacement in V1's runner what became of it here.
"""

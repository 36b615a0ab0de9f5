"""The MTP head: its block, the chain over depths, attaching it to a model family, its checkpoint format.

| file | holds |
|---|---|
| `families.py` | the trunk families we know, by their own decoder layer |
| `config.py` | what a head is: trunk configuration, depths, blocks; `config.json` |
| `layouts.py` | heads that checkpoints bring along: their names, and where their math differs |
| `attention.py`, `grid.py` | attention of a chain over its depths, and the obvious reference it equals; the anchors |
| `latent.py` | queries, keys and values of multi-head latent attention |
| `block.py`, `head.py` | one block; the chain |
| `checkpoint.py` | the head's folder: save, load, refuse |
| `shards.py` | the safetensors files of a checkpoint folder |
| `equip.py`, `native.py` | a head for a policy checkpoint: a new one, or its own |
| `export.py`, `accounting.py`, `adapters.py` | write policy and head for others, prove that it is whole, merge LoRA |
"""

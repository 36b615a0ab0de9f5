"""The MTP head: its block, the chain over depths, attaching it to a model family, its checkpoint format.

| file | holds |
|---|---|
| `families.py` | the trunk families we know, by their own decoder layer |
| `config.py` | what a head is: trunk configuration, depths, blocks; `config.json` |
| `attention.py` | attention of a chain over its depths, and the obvious reference it equals |
| `block.py`, `head.py` | one block; the chain |
| `checkpoint.py` | the head's folder: save, load, refuse |
| `equip.py` | a new head for a policy checkpoint |
"""

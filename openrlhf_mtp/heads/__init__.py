"""The MTP head: its block, the chain over depths, and its files.

| module | holds |
|---|---|
| `head`, `block` | the chain of depths; one block |
| `attention`, `grid`, `latent` | attention of a chain over its depths; the anchors; multi-head latent attention |
| `flash` | attention through FlashAttention on CUDA |
| `parts`, `recompute` | long batches in parts, computed again in backward |
| `constant` | a head that gradients go through and not into |
| `head_config` | what a head is: trunk configuration, depths, blocks; `config.json` |
| `hf_classes` | a family's classes in transformers |
| `formats` | heads on disk: make, read, write, export |
"""

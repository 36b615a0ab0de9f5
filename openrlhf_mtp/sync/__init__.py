"""Trainer weights (policy and head) to every rollout engine in one checked round that cannot hang.

| module | side | what |
|---|---|---|
| `manifest`, `digest`, `buckets`, `backend`, `verify` | both | pure: what travels, how it is packed and compared |
| `store` | both | where ranks meet: one interface, entries sealed with the run's token |
| `transport` | both | broadcasts with a deadline |
| `source`, `engines`, `round`, `trainer` | trainer | `WeightSync`: open, round, close |
| `layout`, `engine`, `effective` | vLLM worker | what it holds, how it receives, what it really computes with |
"""

"""Trainer weights (policy and head) to every rollout engine in one round, which has a deadline. See docs/sync.md.

One round, after the updates of an RL step:

1. Announce: `sender` calls every engine's actor; it pauses, and its workers wait (`rollout.actor`, `receiver`).
2. Send: `rounds` takes the tensors off their source, packs a bucket with checksums, and sends it through an outlet.
3. Load: `receiver` refuses a damaged bucket and hands its tensors to vLLM's own loader, layer by layer.
4. Read back: in a verified round, `receiver` digests what the engine's layers compute with (`readback`), and tries
   those whose weights cannot be read back (`trial`).
5. Answer: the actor drops the blocks that older weights computed, resumes, and returns the digests.
6. Compare: `sender` compares them with the digests of what it sent; an error names each tensor that differs.

`mtp.sync.verify_every` says which rounds are verified. The first of them reads back every column of each matrix, later
ones a sample of columns.

| module | side | what |
|---|---|---|
| `opening` | trainer | before the first round: the same tensors on both sides, all ranks connected |
| `sender`, `rounds` | trainer | the round, as a recipe; its number and limit, and the way of its buckets |
| `receiver` | vLLM worker | receives, loads, reads back |
| `loaded_layers` | vLLM worker | which rows of which layer are which checkpoint tensor |
| `transport` | both | how bytes travel, and which way a job uses |
| `outlets` | both | a transport as a round sees it: outlet of the trainer, inlet of a worker |
| `group` | both | gloo and NCCL: one rank among trainer and workers, broadcasts with a deadline |
| `handover`, `doors`, `shared_memory` | both | ipc: buckets in memory that trainer rank and worker share |
| `rank_notes`, `store` | both | where ranks meet: how far each has come, who gave up, under the run's seal |
| `readback` | both | what is read back, what is expected, and the comparison |
| `convolution` | vLLM worker | weights of a packed convolution, by an impulse through its kernel |
| `trial`, `packed_experts` | vLLM worker | layers that are run and compared with what arrived; experts are such |
| `manifest`, `buckets`, `digest` | both | pure: what travels, how it is packed and digested |
| `waiting`, `errors`, `report` | both | waits that end, what they raise, what a round took |
"""

"""Everything that is replaced in OpenRLHF and the packages below it.

Each module declares its replacements (`replacement.Replacement`): what they touch, why, the versions they were checked
on, and a probe. docs/replacements.md shows all of that, and `openrlhf-mtp doctor` counts those that are live.

| module | changes | so that |
|---|---|---|
| `cpu_host` | torch | torch.cuda calls without a device |
| `cpu_host` | OpenRLHF | flash-attn's padding helpers |
| `cpu_host` | OpenRLHF | DeepSpeed strategy on CPU |
| `cpu_host` | DeepSpeed | DeepSpeed's shared-memory op |
| `cpu_host` | DeepSpeed | ZeRO-3 gathers that are waited for |
| `cpu_host` | OpenRLHF | replay buffer on CPU |
| `linear_attention` | transformers | linear attention ends with its sample in Qwen3_5GatedDeltaNet |
| `linear_attention` | transformers | linear attention ends with its sample in Qwen3_5MoeGatedDeltaNet |
| `linear_attention` | transformers | linear attention ends with its sample in Qwen3NextGatedDeltaNet |
| `openrlhf.bindings` | OpenRLHF | the driver starts our actors |
| `openrlhf.bindings` | OpenRLHF | the driver starts our controller |
| `openrlhf.bindings` | OpenRLHF | the driver starts our asynchronous controller |
| `openrlhf.bindings` | OpenRLHF | a trainer process builds our policy and our trainer |
| `openrlhf.bindings` | OpenRLHF | a controller uses our prompts, samples and experience |
| `openrlhf.bindings` | OpenRLHF | an asynchronous controller uses our prompts and samples |
| `openrlhf.bindings` | OpenRLHF | an asynchronous controller starts our two sides |
| `openrlhf.bindings` | OpenRLHF | rollout engines are our Ray actors, placed with a limit |
| `openrlhf.bindings` | OpenRLHF | a rollout engine asks our executor for rewards |
| `openrlhf.bindings` | OpenRLHF | a benchmark's trainer draws no bar |
| `openrlhf.dynamic_batches` | OpenRLHF | dynamic batches accumulate |
| `openrlhf.evaluation` | OpenRLHF | an evaluation's samples are kept |
| `openrlhf.extra_loss` | OpenRLHF | the training step's loss has a term of ours |
| `openrlhf.last_step` | OpenRLHF | an optimizer step ends where it is marked |
| `openrlhf.last_step` | OpenRLHF | the actor trains on the last micro-batch |
| `openrlhf.last_step` | OpenRLHF | the critic trains on the last micro-batch |
| `openrlhf.last_step` | OpenRLHF | dynamic batches of all samples |
| `openrlhf.moving_average` | OpenRLHF | moving average in float32 |
| `openrlhf.precision` | OpenRLHF | models in float32 |
| `openrlhf.reward_scale` | OpenRLHF | reward models keep their scale |
| `openrlhf.schedule_end` | OpenRLHF | learning-rate schedules have an end |
| `openrlhf.timing` | OpenRLHF | a benchmark times the policy's forward pass |
| `openrlhf.timing` | DeepSpeed | a benchmark times the policy's backward pass |
| `openrlhf.timing` | OpenRLHF | a benchmark times the policy's update |
| `openrlhf.zero3_rotary` | OpenRLHF | rotary frequencies in float32 |
| `ray_start` | Ray | Ray's start has the time a slow machine needs |
| `uncompiled` | OpenRLHF | compute_entropy without torch.compile on CPU |
| `uncompiled` | DeepSpeed | muon_update without torch.compile on CPU |
| `uncompiled` | DeepSpeed | zeropower_via_gram_newtonschulz without torch.compile on CPU |
| `uncompiled` | DeepSpeed | zeropower_via_newtonschulz5 without torch.compile on CPU |
| `uncompiled` | vLLM | compiled_random_sample without torch.compile on CPU |
| `uncompiled` | vLLM | batched_count_greater_than without torch.compile on CPU |
| `uncompiled` | vLLM | get_masked_input_and_mask without torch.compile on CPU |
| `vllm.chunk_ends` | vLLM | tokens after a prompt's chunks |
| `vllm.chunk_ends` | vLLM | next token at a chunk's end |
| `vllm.compile_key` | vLLM | compiled drafts by their configuration |
| `vllm.context_end` | vLLM | drafts beside a sequence at its context's end |
| `vllm.draft_depth` | vLLM | depth of a draft step |
| `vllm.draft_seeds` | vLLM | seeds of drafts |
| `vllm.latent_rotation` | vLLM | rotary positions of latent attention on CPU |
| `vllm.packed_experts` | vLLM | experts are packed again on CPU |
| `vllm.ray_on_cpu` | vLLM | Ray's executor on CPU |
| `vllm.sampler_profile` | vLLM | profile of sampled drafts |
| `vllm.sampling` | vLLM | draft temperatures on CPU |
| `vllm.seeds` | vLLM | seeds and prompts in chunks on CPU |
| `vllm.v2.block_noise` | vLLM | random numbers of a block's drafts |
| `vllm.v2.block_noise` | vLLM | random numbers of a block's verification |
| `vllm.v2.draft_depth` | vLLM | depth of a draft step, V2 |
| `vllm.v2.sampler_profile` | vLLM | profile of sampled drafts, V2 |

docs/adding.md says how to add one.

Beside the replacements:

- `replacement` and `patching` carry replacements out; `registry` finds them all.
- `processes` installs the patches in the driver and in Ray's workers, `vllm.patches` in vLLM's processes.
- `openrlhf.flags` reads OpenRLHF's argument parser from its source; `openrlhf.remarks` rewords its notes.
- `openrlhf.optimizer_step` gives a micro-batch its whole optimizer step; `openrlhf.last_step` puts it in place.
"""

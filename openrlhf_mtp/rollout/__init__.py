"""The rollout side: vLLM engines that draft with the head, count what is accepted, and take weights.

| module | holds |
|---|---|
| `engine` | the engines of a job: OpenRLHF's factory with our actor and our arguments |
| `environment` | the process of an engine: its variables, what runs its workers |
| `actor` | a Ray actor with one engine: generate, count, receive weights |
| `engine_args`, `gpu_limits` | a job's own arguments of vLLM; sequences, tokens and CUDA graphs on a GPU |
| `log_probs` | which responses come with log-probs |
| `worker` | our methods on vLLM's worker |
| `plugin` | vLLM's entry point: patches and registrations in each of its processes |
| `draft_model` | the head as a draft model inside vLLM |
| `stats`, `monitor`, `guard` | counters of an engine; the metrics of a step; the alarm when acceptance collapses |
| `ended_responses` | acceptance by response, and by place in it |
| `rewards` | rewards that fail loudly |
"""

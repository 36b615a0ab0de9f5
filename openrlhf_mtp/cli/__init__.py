"""`openrlhf-mtp <command>`: the command line, where training and rollout meet.

| module | holds |
|---|---|
| `main`, `bench_commands` | the commands, thin: each imports its engine when it runs |
| `check`, `convert`, `export`, `doctor`, `version` | one command each |
| `train`, `pretrain` | the two stages of training; `generation` writes the responses that `pretrain` trains on |
| `quickstart` | the whole way on a tiny model |
| `jobs`, `completion`, `hub` | a checked job from words on the command line; names to complete; a model by its name |
| `machine` | precision and threads of a run |
| `ray_session`, `processes` | a Ray cluster for one command; the processes below it |
| `progress`, `messages`, `usage` | what the user sees: lines of progress, messages, help |
| `outcome`, `failures`, `out_of_memory`, `worker_output` | how a command ends: exit code, a worker's error and output |
"""

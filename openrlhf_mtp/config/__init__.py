"""The job file: typed MTP settings, OpenRLHF's flags passed through, and checks that refuse early.

Nothing here imports torch, so `openrlhf-mtp check` answers at once and on any machine.

| module | holds |
|---|---|
| `job` | a job file, read and merged with the command line; `reading` does the reading |
| `settings` | the typed `mtp:` section |
| `checks`, `problem` | the checks, a file for each subject; what a check reports |
| `job_context` | a job on a host: what checks and plans are computed from |
| `plan`, `memory`, `threads`, `updates`, `roles`, `sync_time` | what a job would do: GPUs by role, memory, steps |
| `engine_args`, `engine_limits`, `sampler_memory` | an engine: its arguments, sizes and sampler's memory |
| `head_contract` | what a head must fit, and how its drafts are drawn and verified |
| `objectives` | the objectives by name, with what a job must know of each |
| `families`, `native_layouts` | the model families, and how they keep heads of their own |
| `machine` | this machine: GPUs, precision |
| `model_files`, `tokenizer_files`, `data_files`, `rope` | models and data on this machine, as far as their files tell |
| `checkpoints`, `run_files`, `atomic_files` | checkpoints of a run, names in a run folder, files that appear whole |
| `convert` | an OpenRLHF launch script as a job file |
| `errors` | errors that a user can act on |
"""

"""`openrlhf-mtp bench`: the measurements. Only this room and `cli` may see training and rollout together.

| module | holds |
|---|---|
| `harness` | turns, the warm-up that does not count, the clock that waits for the device |
| `ratios` | one form over another, with the interval over the repeats |
| `report` | the table, the JSON, which command, code and machine a result came from |
| `isolated` | a form in a process of its own, with its own peak memory |
| `loss` | time and memory of the loss; `loss_forms` computes it, `kernels` measures the row kernels alone |
| `head` | the head alone at a large model's shape, by length; `head_forms` builds it |
| `step` | an optimizer step in each regime; `step_forms` names the regimes, `step_trainer` builds the trainer |
| `sync` | a sync round beside OpenRLHF's own; `sync_setup` starts both sides, `sync_worker` is an engine |
| `random_policy` | the policy that a training step and a sync round are measured on |
| `kept` | the memory that autograd keeps for a backward pass |
| `rollout` | tokens per second with drafts; `rollout_subject` finds the model, `rollout_engine` runs vLLM |
| `whole_rollout` | seconds of whole rollouts by arms in turn; `whole_setup` reads the options |
| `drafting`, `rollout_arms` | the arms of a whole rollout; their engines |
| `whole_run` | a whole RL run with a head beside one without; `whole_run_figure` draws it |
| `lengths`, `requests`, `timeline` | a whole rollout's response lengths; its prompts; its steps and figures |
| `everything` | all of them, as commands one after the other, and their ratios in one file |
| `stand_in` | a tiny policy at a large one's cost, for hosts where a tiny one shows nothing |

To add a measurement, write one file and one command:

1. `bench/NAME.py`, with a function `bench_NAME(out, ...) -> int`. Check the arguments, call `writable(out)`, hand the
   forms to `harness.take_turns`, and end with `report.publish(out, "bench_NAME.json", record, tables)`. A form is a
   call without arguments that returns what it measured, for example `partial(timed, run)`; it raises
   `UnavailableError` where it cannot run. Compare two forms with `Ratio.by_turn`, or with `Ratio.of_medians` if their
   runs did not take turns.
2. A command in `cli/bench_commands.py` that imports that function when it runs.

3. A `Part` in `everything`, with the ratios of its record.

Name the command in `tests/unit/cli/test_main.py`, and test what the measurement counts in `tests/engine`, never how
fast it is.
"""

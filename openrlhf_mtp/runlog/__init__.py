"""A run's folder: what is written while it runs and read back afterwards.

| file | holds |
|---|---|
| `metrics.py` | every metric's name, unit and meaning |
| `metric_table.py` | how a metric is declared and a name looked up |
| `run_folder.py` | the folder: claimed before a run, its whole files written |
| `row_writer.py` | the log of steps, written: `metrics.jsonl` and TensorBoard |
| `rows.py` | the log of steps, line by line |
| `run.py` | a run folder read back |
| `anchor_records.py` | `records/`: per-anchor values of some steps |
| `rollouts.py` | `rollouts/`: the responses of each RL step, where the job asks for them |
| `temperature_sweep.py` | `temperatures.json`: entropy and acceptance length by temperature |
| `notices.py` | `notices.jsonl`: what a run has to say beside its numbers |
| `provenance.py` | versions and git revision for `command.txt` |
| `agreement.py` | whether trainer and engines agree on acceptance |
| `unasked.py` | the mark of a token without the engine's log-prob |
| `checkpoint_request.py` | a stopping pod asks the run for a checkpoint |
| `activity.py` | what a run is at within a step, said by the process that does it |
| `count.py`, `generation_progress.py`, `time_left.py` | how far work is and how long it still takes, in words |
| `scalars.py` | one number out of whatever a reward function returned |
"""

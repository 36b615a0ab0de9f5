"""The names of what a run folder holds.

    run.yaml            the resolved job; `openrlhf-mtp train run.yaml` runs it again
    command.txt         argv, package versions, git revision
    machine.json        what was made of the machine: precision, threads, and the measurement behind them
    metrics.jsonl       one line a step, names from `openrlhf_mtp.runlog.metrics`
    notices.jsonl       what a user should know beside the numbers (`openrlhf_mtp.runlog.notices`)
    records/*.npz       per-anchor entropy and acceptance of some steps (`openrlhf_mtp.runlog.anchor_records`)
    rollouts/*.jsonl    with `mtp.record.rollouts`: the responses of each RL step (`openrlhf_mtp.runlog.rollouts`)
    summary.json        what the run came to
    tensorboard/        the rows of metrics.jsonl as TensorBoard events
    figures/, report.html   the report (`openrlhf_mtp.analysis`)
    driver.log          what OpenRLHF printed in the driver
    checkpoints/        what a run is resumed from, unless the job puts it elsewhere
    final/              RL: the trained policy with its head, unless the job puts it elsewhere
    responses/, head/   the pre-RL stage: the policy's responses, and the head trained on them
    states/             the pre-RL stage while it runs: hidden states of the policy on those responses
    temperatures.json   entropy and acceptance length by temperature (`openrlhf_mtp.runlog.temperature_sweep`); the
                        pre-RL stage keeps it in head/, and RL copies it from the folder of the head it starts with
    attempts.json, failed.json   on Kubernetes: attempts at this run (`openrlhf_mtp.cluster.attempts`)
    logs/POD/SESSION/   on Kubernetes: what each pod printed (`openrlhf_mtp.cluster.pod_logs`)

`openrlhf_mtp.runlog` writes all of these down to `report.html`. The names are here, below every room, because
the checks of a job ask for some of them. Hidden files carry messages between the processes of a run, under names that
their modules own (`openrlhf_mtp.runlog.checkpoint_request`, `openrlhf_mtp.cluster.pods`).
"""

RUN_YAML = "run.yaml"
COMMAND = "command.txt"
MACHINE = "machine.json"
METRICS = "metrics.jsonl"
NOTICES = "notices.jsonl"
RECORDS = "records"
ROLLOUTS = "rollouts"
SUMMARY = "summary.json"
TENSORBOARD = "tensorboard"
FIGURES = "figures"
REPORT = "report.html"
DRIVER_LOG = "driver.log"
CHECKPOINTS = "checkpoints"
FINAL = "final"
RESPONSES = "responses"
STATES = "states"
TRAINED_HEAD = "head"
TEMPERATURES = "temperatures.json"
ATTEMPTS, FAILED = "attempts.json", "failed.json"

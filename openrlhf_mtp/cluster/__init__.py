"""A run on a cluster: roles on pods, checks before it starts, attempts, and what its pods leave behind.

The chart `helm/openrlhf-mtp` calls most of these as `python -m openrlhf_mtp.cluster.<module>`.

| module | holds |
|---|---|
| `placement` | placement groups by role, which fail with numbers instead of waiting forever |
| `preflight` | checks on all pods before a run: `nodes`, `pods`, `broadcast`, and `nccl_log` for what NCCL went over |
| `attempts` | whether a failed run is started again |
| `submit`, `scale`, `own_job` | the submitter where there is no operator; its StatefulSets; a job that ends itself |
| `operator_version`, `operator_watch` | the KubeRay operator: which one, and whether it still watches |
| `caches` | whether compiled kernels can be kept |
| `exporter` | the run's last row for Prometheus |
| `pod_logs` | the output of a pod's workers, kept in the run folder |
| `request_checkpoint` | a pod that must stop asks for a checkpoint |
"""

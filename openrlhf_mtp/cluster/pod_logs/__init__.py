"""The output of a pod's Ray, its workers and their engines, kept and shown. Standard library only.

Ray writes all of it to files in the pod's own `/tmp`, which goes with the pod.
`python -m openrlhf_mtp.cluster.pod_logs` runs beside Ray in every pod: `follower` reads what is new, `console` prints
what people look for, so that `kubectl logs` shows it, and `keeper` copies everything to the run folder.
"""

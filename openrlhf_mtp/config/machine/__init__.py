"""The machine a job is checked for or runs on: its GPUs, and the precision it computes in."""

"""What a machine has, and what a job makes of it: GPUs, memory, threads, precision."""

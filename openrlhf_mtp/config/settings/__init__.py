"""The typed `mtp:` section of a job file."""

"""The job file: typed MTP settings, OpenRLHF's flags passed through, and checks that refuse early.

Nothing here imports torch, so `openrlhf-mtp check` answers at once and on any machine.
"""

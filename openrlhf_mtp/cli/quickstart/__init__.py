"""`openrlhf-mtp quickstart`: the whole way on one machine without a GPU."""

"""What is replaced in OpenRLHF, and what is read from its source."""

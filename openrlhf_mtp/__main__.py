"""`python -m openrlhf_mtp` is `openrlhf-mtp`."""

from openrlhf_mtp.cli.main import main

if __name__ == "__main__":
    main()

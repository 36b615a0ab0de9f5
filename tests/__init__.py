"""Makes the name `tests` this folder in every process: OpenRLHF's wheel installs a package of that name too."""

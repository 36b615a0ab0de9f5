"""From a job file's text and the command line's words to named values, each with its place."""

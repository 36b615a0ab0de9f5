"""Lines of progress: of a run in other processes, of work counted here, of several stages."""

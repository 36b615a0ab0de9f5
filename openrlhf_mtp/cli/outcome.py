"""The end of a command: its exit code, and a message for everything that went wrong. A traceback goes into a file."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, TextIO

from typer.exceptions import Abort, TyperException

from openrlhf_mtp.cli.messages import accept_any_text, keep_traceback, say, terminal_width, wrapped
from openrlhf_mtp.cli.processes import Terminated
from openrlhf_mtp.cli.usage import Interrupted, usage_message
from openrlhf_mtp.config.errors import USER_ERROR, JobError

RUN_FAILED = 1
"""Exit code when a run was started and ended with an error, and of an error in this program."""
INTERRUPTED, TERMINATED = 130, 143
"""Exit codes after Ctrl-C and after SIGTERM, as a shell has them."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


def run_to_exit_code(app: Callable[..., Any]) -> int:
    """Run a typer app; whatever it raises is said on standard error.

    Args:
        app: called with `standalone_mode=False`, so that its errors arrive here.
    """
    try:
        return _outcome(app)
    finally:
        _end_of(sys.stderr)


def _outcome(app: Callable[..., Any]) -> int:
    accept_any_text()
    # OpenRLHF requires the pynvml package, at whose sight torch prints this
    warnings.filterwarnings("ignore", message="The pynvml package is deprecated", category=FutureWarning)
    try:
        code = app(standalone_mode=False)
        if sys.stdout is not None:  # it is None where the shell closed it
            sys.stdout.flush()
    except (KeyboardInterrupt, Interrupted) as end:
        how, code = ("terminated", TERMINATED) if _is_sigterm(end) else ("interrupted", INTERRUPTED)
        print(wrapped(f"{how}: {end}".removesuffix(": "), terminal_width()), file=sys.stderr)
        return code
    except TyperException as problem:
        return _wrong_words(problem)
    except Abort:
        return RUN_FAILED
    except OSError as problem:
        return _not_done_by_the_system(problem)
    except Exception as problem:
        return _known(problem) or _unknown(problem)
    return code if isinstance(code, int) else 0


def _is_sigterm(end: BaseException | None) -> bool:
    """Whether an interrupt is SIGTERM's, under whatever names it left the command."""
    while end is not None and not isinstance(end, Terminated):
        end = end.__cause__
    return end is not None


def _wrong_words(problem: Any) -> int:
    """A mistake on the command line; a group without a command shows its help."""
    if type(problem).__name__ == "NoArgsIsHelpError":
        problem.show()
    else:
        say("error", usage_message(problem, sys.argv[1:]))
    return int(problem.exit_code)


def _not_done_by_the_system(problem: OSError) -> int:
    """A full disk, a reader that has gone, a folder that may not be written."""
    if problem.errno == errno.EPIPE:
        _drop(sys.stdout)
        return RUN_FAILED
    if problem.errno in _FULL:
        _drop(sys.stdout)
        where = f": {problem.filename}" if problem.filename else ""
        say("error", f"no space left to write{where}; free some, or give another folder")
        return RUN_FAILED
    if problem.filename is None or problem.strerror is None:
        return _unknown(problem)
    say("error", f"{problem.filename}: {problem.strerror.lower()}")
    return USER_ERROR


def _known(problem: Exception) -> int | None:
    """The exit code of a problem that explains itself, None for any other.

    The modules are imported only now, because some of them are slow to import.
    """
    from openrlhf_mtp.cli.failures import RunFailed
    from openrlhf_mtp.cluster.placement import ClusterTooSmallError
    from openrlhf_mtp.runlog.run_folder import RunFolderError
    from openrlhf_mtp.upstream.openrlhf.flags import UpstreamChangedError

    if not isinstance(
        problem, JobError | ClusterTooSmallError | RunFolderError | UpstreamChangedError | RunFailed
    ):
        return None
    say("error", problem)
    return RUN_FAILED if isinstance(problem, RunFailed) else USER_ERROR


def _unknown(problem: Exception) -> int:
    file = keep_traceback(problem)
    where = f"its traceback is in {file}" if file else "its traceback could not be written"
    say(
        "error",
        f"{type(problem).__name__}: {problem}\nThis is a bug in openrlhf-mtp, not a mistake of yours; {where}. Please "
        "report it with that, the job file and the output of openrlhf-mtp --version.",
    )
    return RUN_FAILED


def _end_of(stream: TextIO | None) -> None:
    """Flush a stream that may be full or closed: Python does so after us, and ends with exit code 120 if it fails."""
    if stream is not None:
        try:
            stream.flush()
        except (OSError, ValueError):
            _drop(stream)


def _drop(stream: TextIO) -> None:
    """Let Python not fail once more when it flushes the stream at its end."""
    with contextlib.suppress(OSError, ValueError):  # no file behind it
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

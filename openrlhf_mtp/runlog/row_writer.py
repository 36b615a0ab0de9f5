"""The log of a run's steps, as it is written.

A run may die at any moment: a line is written in one piece and flushed to the disk before the step counts as logged. A
reader drops a last line that was cut off (`rows.read_rows`).
"""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from openrlhf_mtp.config.atomic_files import write_atomically
from openrlhf_mtp.config.run_files import METRICS, TENSORBOARD
from openrlhf_mtp.runlog import metrics
from openrlhf_mtp.runlog.anchor_records import drop_records
from openrlhf_mtp.runlog.rollouts import drop_rollouts
from openrlhf_mtp.runlog.rows import encoded, read_rows


class RowWriter:
    """Write rows to `metrics.jsonl`, one a step, and to TensorBoard. Use it as a context manager, or call `close`.

    `after_step` continues an earlier run from that step: rows, records and rollouts of later steps, which the resumed
    run will write again, are dropped. None starts from nothing, so all earlier rows are (`claim` is what protects a
    finished run). A step may be logged once, and steps must grow.
    """

    def __init__(self, out: Path, *, after_step: int | None = None) -> None:
        self.out = out
        self._metrics = out / METRICS
        self._last_step = -1
        out.mkdir(parents=True, exist_ok=True)
        self._rewind(-1 if after_step is None else after_step)
        (out / TENSORBOARD).mkdir(exist_ok=True)
        self._events = EventFileWriter(str(out / TENSORBOARD))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Flush the TensorBoard events; `metrics.jsonl` is complete after every call."""
        self._events.close()

    def append(self, row: Mapping[str, float]) -> None:
        """Log one step.

        Raises:
            UnknownMetric: the row has an undeclared name.
            ValueError: the row has no step, or one that is not above the last.
        """
        metrics.validate(row)
        step = row.get(metrics.STEP)
        if step is None or step <= self._last_step:
            raise ValueError(f"a row needs a step above {self._last_step}, got {step}")
        self._last_step = int(step)
        numbers = {name: float(value) for name, value in row.items()} | {metrics.STEP: int(step)}
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(encoded(numbers))
            file.flush()
            os.fsync(file.fileno())
        self._add_events(numbers)

    def amend(self, extra: Mapping[str, float], *, step: int) -> None:
        """Add metrics to a step's row, for what is measured after the step was logged (an evaluation).

        Raises:
            UnknownMetric: a name is undeclared.
            ValueError: that step was not logged.
        """
        metrics.validate(extra)
        rows, _ = read_rows(self._metrics)
        row = next((row for row in rows if row[metrics.STEP] == step), None)
        if row is None:
            raise ValueError(
                f"step {step} has no row to add {', '.join(extra)} to; the last one is {self.last_step}"
            )
        row.update({name: float(value) for name, value in extra.items()})
        write_atomically(self._metrics, "".join(encoded(row) for row in rows))
        self._add_events({**extra, metrics.STEP: step})

    @property
    def last_step(self) -> int:
        """The step logged last, by this writer or before it resumed; -1 if there is none."""
        return self._last_step

    def _add_events(self, numbers: Mapping[str, float]) -> None:
        values = [Summary.Value(tag=n, simple_value=v) for n, v in numbers.items() if n != metrics.STEP]
        self._events.add_event(Event(step=int(numbers[metrics.STEP]), summary=Summary(value=values)))
        self._events.flush()

    def _rewind(self, after_step: int) -> None:
        rows, _ = read_rows(self._metrics)
        kept = [row for row in rows if row[metrics.STEP] <= after_step]
        write_atomically(self._metrics, "".join(encoded(row) for row in kept))
        self._last_step = int(kept[-1][metrics.STEP]) if kept else -1
        drop_records(self.out, after_step=after_step)
        drop_rollouts(self.out, after_step=after_step)

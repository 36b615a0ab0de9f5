"""`openrlhf-mtp bench ...`: the measurements. Thin, as `main`: what they need is imported inside the one that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openrlhf_mtp.cli.usage import App

bench = App(help="Measure speed.")

Out = Annotated[Path, typer.Option(metavar="DIR", help="where the result goes")]
RESULTS = Path("runs/bench")


@bench.command("rollout", short_help="Tokens per second with drafts and without.")
def rollout(
    model: Annotated[
        str | None, typer.Argument(help="folder of a policy; default the quickstart's result")
    ] = None,
    out: Out = RESULTS,
    head: Annotated[
        Path | None, typer.Option(metavar="DIR", help="the head's folder; default mtp inside the policy's")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON lines with an `input` each")
    ] = None,
    repeats: Annotated[int, typer.Option(metavar="N", help="timed repetitions of each batch", min=1)] = 3,
) -> None:
    """Tokens per second with and without drafts, at batch 1, 4 and 16, same engine and prompts.

    \b
    Example:
      openrlhf-mtp bench rollout models/qwen2.5-0.5b
    """
    from openrlhf_mtp.bench.rollout import bench_rollout

    raise typer.Exit(bench_rollout(model, out, head=head, prompts=prompts, repeats=repeats))


@bench.command("loss", short_help="Time and memory of the loss, ours and others'.")
def loss(
    out: Out = RESULTS,
    vocab: Annotated[int, typer.Option(metavar="N", help="entries of the vocabulary", min=2)] = 151_936,
    hidden: Annotated[int, typer.Option(metavar="N", help="width of the hidden states", min=1)] = 1024,
    tokens: Annotated[int, typer.Option(metavar="N", help="anchors that have all depths", min=1)] = 1024,
    depths: Annotated[int, typer.Option(metavar="N", help="tokens drafted from each anchor", min=1)] = 3,
    objective: Annotated[str, typer.Option(metavar="NAME", help="e2e_tv or ce")] = "e2e_tv",
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="a floating type of torch; default float32 on a CPU, bfloat16 on a GPU"
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(metavar="N", help="timed runs of each form", min=1)] = 5,
    smoke: Annotated[bool, typer.Option("--smoke", help="tiny, in seconds: does everything run?")] = False,
) -> None:
    """Time and peak memory of the loss, forward and backward: ours, plain PyTorch, and `speculators` on a GPU.

    \b
    Example:
      openrlhf-mtp bench loss
      openrlhf-mtp bench loss --objective ce --tokens 256
    """
    from openrlhf_mtp.bench.loss import bench_loss
    from openrlhf_mtp.bench.loss_forms import Workload
    from openrlhf_mtp.bench.report import default_device

    device = default_device()
    dtype = dtype or ("bfloat16" if device == "cuda" else "float32")
    workload = Workload(vocab, hidden, tokens, depths, objective, dtype, device, repeats)
    raise typer.Exit(bench_loss(out, workload, smoke=smoke))


@bench.command("step", short_help="Time of a training step in each regime.")
def step(
    out: Out = RESULTS,
    layers: Annotated[int, typer.Option(metavar="N", help="layers of the trunk", min=1)] = 24,
    hidden: Annotated[
        int, typer.Option(metavar="N", help="width of the trunk, a multiple of 64", min=64)
    ] = 1024,
    vocab: Annotated[int, typer.Option(metavar="N", help="entries of the vocabulary", min=64)] = 32_768,
    sequences: Annotated[int, typer.Option(metavar="N", help="sequences in a micro-batch", min=1)] = 4,
    response: Annotated[int, typer.Option(metavar="N", help="tokens of a response", min=8)] = 128,
    micro_batches: Annotated[
        int, typer.Option(metavar="N", help="micro-batches in an optimizer step", min=1)
    ] = 1,
    depths: Annotated[int, typer.Option(metavar="N", help="depths trained", min=1)] = 3,
    fraction: Annotated[
        float, typer.Option(metavar="SHARE", help="share of the anchors", min=0.01, max=1.0)
    ] = 0.25,
    repeats: Annotated[int, typer.Option(metavar="N", help="timed steps of each form", min=1)] = 5,
    smoke: Annotated[bool, typer.Option("--smoke", help="tiny, in seconds: does everything run?")] = False,
) -> None:
    """Time of a training step without a head, and with one in each regime.

    \b
    Example:
      openrlhf-mtp bench step
      openrlhf-mtp bench step --micro-batches 4

    With several micro-batches OCC runs the policy forward once more, for its coefficient.
    """
    from openrlhf_mtp.bench.step import bench_step
    from openrlhf_mtp.bench.step_forms import Workload

    workload = Workload(
        layers=layers,
        hidden=hidden,
        vocab=vocab,
        sequences=sequences,
        response=response,
        micro_batches=micro_batches,
        depths=depths,
        fraction=fraction,
        repeats=repeats,
    )
    raise typer.Exit(bench_step(out, workload, smoke=smoke))

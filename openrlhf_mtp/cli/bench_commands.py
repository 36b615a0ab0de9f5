"""`openrlhf-mtp bench ...`: the measurements. Thin, as `main`: what they need is imported inside the one that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from openrlhf_mtp.cli.usage import App

bench = App(help="Measure the speed of rollouts, the loss, the head, a training step or a weight sync.")

Out = Annotated[Path, typer.Option(metavar="DIR", help="folder for the result")]
Smoke = Annotated[
    bool, typer.Option("--smoke", help="run a tiny form in seconds, to see that everything works")
]
RESULTS = Path("runs/bench")


def count(help: str, least: int = 1) -> Any:
    """An option that takes a whole number."""
    return typer.Option(metavar="N", help=help, min=least)


@bench.command("rollout", short_help="Tokens per second with and without drafts.")
def rollout(
    model: Annotated[
        str | None, typer.Argument(help="folder of a policy; the default is the result of the quickstart")
    ] = None,
    out: Out = RESULTS,
    head: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="folder of the head; the default is mtp inside the folder of the policy"
        ),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="prompts: JSON lines, each with an `input`")
    ] = None,
    chat_template: Annotated[
        bool, typer.Option(help="put each prompt into the tokenizer's chat template, where it has one")
    ] = True,
    repeats: Annotated[
        int | None,
        count("timed repetitions of each batch, by default 3; of each arm with --whole, by default 4"),
    ] = None,
    whole: Annotated[
        int | None, count("measure a whole rollout of so many responses, down to the last one")
    ] = None,
    recorded: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="a whole rollout with the prompts and lengths of an RL step's rollouts/step_*.jsonl",
        ),
    ] = None,
    lengths: Annotated[
        str,
        typer.Option(
            metavar="LENGTHS", help="of a whole rollout's responses: a number, or lognormal:MEDIAN:SIGMA:MOST"
        ),
    ] = "lognormal:60:0.8:200",
    arms: Annotated[
        str,
        typer.Option(
            metavar="ARMS",
            help="of a whole rollout: none, head, ngram, ngram:MIN:MAX, suffix, NAME=DIR of a head",
        ),
    ] = "none,head",
    history: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="recorded rollouts that suffix drafts may come from; may be repeated"
        ),
    ] = None,
    prefix_caching: Annotated[bool, typer.Option(help="cache prompts within a whole rollout")] = False,
    stand_in: Annotated[
        bool, typer.Option(help="measure a stand-in of a small policy on a CPU, in a whole rollout")
    ] = True,
) -> None:
    """Measure tokens per second with and without drafts, at batch 1, 4 and 16, with the same engine and prompts.

    The precision is that of a run on this machine. On a CPU, a model with less than 100 million parameters is replaced
    by a stand-in of the same distributions.

    With --whole or --recorded, measure seconds of a whole rollout instead, from the full batch to the last response,
    by arms that take turns. All arms generate the same numbers of tokens.

    \b
    Example:
      openrlhf-mtp bench rollout models/qwen2.5-0.5b
      openrlhf-mtp bench rollout runs/first/final \\
        --prompts data/test.jsonl
      openrlhf-mtp bench rollout runs/first/final \\
        --whole 64 --arms none,head,ngram,suffix
    """
    from openrlhf_mtp.bench.report import default_device
    from openrlhf_mtp.bench.rollout import bench_rollout
    from openrlhf_mtp.bench.whole_setup import Options, bench_whole_rollout
    from openrlhf_mtp.cli.machine import measure_speed
    from openrlhf_mtp.config.machine.precision import AUTO, choose

    has_cuda = default_device() == "cuda"
    precision = choose(AUTO, has_cuda=has_cuda, speed=None if has_cuda else measure_speed())
    common: dict[str, Any] = {
        "head": head,
        "prompts": prompts,
        "chat_template": chat_template,
        "dtype": precision.dtype,
    }
    if whole is None and recorded is None:
        raise typer.Exit(bench_rollout(model, out, repeats=repeats or 3, **common))
    options = Options(whole, arms, lengths, recorded, history or (), prefix_caching, repeats or 4, stand_in)
    raise typer.Exit(bench_whole_rollout(model, out, options, **common))


@bench.command("loss", short_help="Time and memory of the loss, compared with others.")
def loss(
    out: Out = RESULTS,
    vocab: Annotated[int, count("size of the vocabulary", 2)] = 151_936,
    hidden: Annotated[int, count("hidden size")] = 1024,
    tokens: Annotated[int, count("anchors with all depths inside the response")] = 1024,
    depths: Annotated[int, count("tokens drafted at each anchor")] = 3,
    objective: Annotated[str, typer.Option(metavar="NAME", help="e2e_tv or ce")] = "e2e_tv",
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="a floating-point type of torch; the default is float32 on a CPU and bfloat16 on a GPU",
        ),
    ] = None,
    repeats: Annotated[int, count("timed runs of each form")] = 5,
    smoke: Smoke = False,
) -> None:
    """Measure time and peak memory of the loss, forward and backward.

    Compares our form with plain PyTorch and, on a GPU, with `speculators`.

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


@bench.command("head", short_help="Time and memory of the head, by length.")
def head(
    out: Out = RESULTS,
    hidden: Annotated[int, count("hidden size, a multiple of 512", 512)] = 1024,
    vocab: Annotated[int, count("size of the vocabulary", 64)] = 32_768,
    tokens: Annotated[
        list[int], typer.Option(metavar="N", help="tokens of the sequence; may be repeated", min=16)
    ] = [1024],  # noqa: B006  # typer reads a list of defaults
    depths: Annotated[int, count("depths trained")] = 3,
    repeats: Annotated[int, count("timed runs of each form")] = 5,
    smoke: Smoke = False,
) -> None:
    """Measure the head without a policy: attention of its last depth, chain, and whole training step.

    The hidden states are random, so neither a policy nor DeepSpeed is needed. The block has the shape of Llama 3's
    layers: heads of width 128, a key-value head for four of them.

    \b
    Example:
      openrlhf-mtp bench head
      openrlhf-mtp bench head --hidden 4096 --vocab 151936 \\
        --tokens 8192 --tokens 32768
    """
    from openrlhf_mtp.bench.head import bench_head
    from openrlhf_mtp.bench.head_forms import Shape
    from openrlhf_mtp.bench.report import default_device

    device = default_device()
    shape = Shape(hidden, vocab, depths, "bfloat16" if device == "cuda" else "float32", device)
    raise typer.Exit(bench_head(out, shape, tokens, repeats, smoke=smoke))


@bench.command("step", short_help="Time of a training step in each regime.")
def step(
    out: Out = RESULTS,
    layers: Annotated[int, count("layers of the policy")] = 24,
    hidden: Annotated[int, count("hidden size, a multiple of 64", 64)] = 1024,
    vocab: Annotated[int, count("size of the vocabulary", 64)] = 32_768,
    sequences: Annotated[int, count("sequences in a micro-batch")] = 4,
    response: Annotated[int, count("tokens in a response", 8)] = 128,
    micro_batches: Annotated[int, count("micro-batches in an optimizer step")] = 1,
    depths: Annotated[int, count("depths trained")] = 3,
    fraction: Annotated[
        float,
        typer.Option(metavar="FRACTION", help="fraction of the anchors that is trained", min=0.01, max=1.0),
    ] = 0.25,
    repeats: Annotated[int, count("timed steps of each form")] = 5,
    form: Annotated[
        list[str] | None,
        typer.Option(metavar="FORM", help="measure this form beside the one without a head; may be repeated"),
    ] = None,
    smoke: Smoke = False,
) -> None:
    """Measure a training step without a head, and with a head in each regime, and what the chain keeps for backward.

    A long micro-batch is measured with its chain in one piece too.

    \b
    Example:
      openrlhf-mtp bench step
      openrlhf-mtp bench step --micro-batches 4
      openrlhf-mtp bench step --sequences 1 --response 8160

    With several micro-batches, OCC runs one more forward pass of the policy for its coefficient.
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
        chosen=tuple(form or ()),
    )
    raise typer.Exit(bench_step(out, workload, smoke=smoke))


@bench.command("sync", short_help="Time of a weight sync, compared with OpenRLHF's.")
def sync(
    out: Out = RESULTS,
    layers: Annotated[int, count("layers of the policy, 12 tensors each")] = 24,
    hidden: Annotated[int, count("hidden size, a multiple of 64", 64)] = 512,
    vocab: Annotated[int, count("size of the vocabulary", 64)] = 16_384,
    engines: Annotated[int, count("rollout engines")] = 1,
    repeats: Annotated[int, count("timed turns of each form")] = 5,
    smoke: Smoke = False,
) -> None:
    """Measure a sync round of a random policy to real engines, by each transport, with and without verification.

    Compares our sync with OpenRLHF's, which makes a call a parameter. On a CPU, OpenRLHF's sync runs over gloo.

    \b
    Example:
      openrlhf-mtp bench sync
      openrlhf-mtp bench sync --engines 2
    """
    from openrlhf_mtp.bench.sync import bench_sync
    from openrlhf_mtp.bench.sync_setup import Workload
    from openrlhf_mtp.cli.ray_session import ray_session

    with ray_session(gpus=engines, threads=1):
        code = bench_sync(out, Workload(layers, hidden, vocab, engines, repeats), smoke=smoke)
    raise typer.Exit(code)


@bench.command("run", short_help="A whole RL run with a head and without one.")
def whole_run(
    job: Annotated[Path, typer.Argument(metavar="JOB.yaml", help="the job file")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="key=value", help="settings of both runs")
    ] = None,
    out: Out = RESULTS / "run",
    turns: Annotated[int, count("runs with a head, and as many without")] = 1,
    reward: Annotated[
        float | None, typer.Option(metavar="REWARD", help="measure the time until this reward is reached")
    ] = None,
) -> None:
    """Run a job with its head and without one, in turns, and compare the seconds of each part of a step.

    Without a head the run is OpenRLHF's own. Both runs of a turn have the same seed and prompts. One turn takes twice
    as long as the job.

    \b
    Example:
      openrlhf-mtp bench run JOB.yaml --turns 2
      openrlhf-mtp bench run JOB.yaml --reward 0.5 \\
        data.max_samples=512
    """
    from openrlhf_mtp.bench.whole_run import bench_run

    raise typer.Exit(bench_run(job, overrides or [], out, turns=turns, reward=reward))


@bench.command("all", short_help="All of these, and their ratios in one file.")
def everything(
    model: Annotated[
        str | None,
        typer.Argument(
            help="folder of a policy for the rollouts; the default is the result of the quickstart"
        ),
    ] = None,
    out: Out = RESULTS,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="run this measurement alone; may be repeated")
    ] = None,
    smoke: Annotated[
        bool,
        typer.Option("--smoke/--full", help="tiny forms, to see that everything works; or the real ones"),
    ] = False,
) -> None:
    """Run the measurements of the loss, a training step, a weight sync and rollouts one after the other.

    Each measurement compares its forms within one run. The command collects these ratios, which hold on machines of
    different speed. A measurement that fails does not stop the next ones.

    \b
    Example:
      openrlhf-mtp bench all --smoke
      openrlhf-mtp bench all runs/first/final --only rollout
    """
    from openrlhf_mtp.bench.everything import bench_all

    raise typer.Exit(bench_all(out, model, smoke=smoke, only=only or ()))

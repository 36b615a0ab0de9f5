"""Verification by a trial, for layers whose weights cannot be read back.

Some kernels keep their weights in an order of their own, behind a nonlinearity: no product with the identity gives them
back (vLLM's experts on a CPU). Such a layer is tried: the worker runs it on inputs that it chooses, and compares the
outputs with the same layer computed in float64 from the tensors that arrived. That finds what a look at parameters
does not: a packed copy that was not renewed, a part that was not loaded, two parts that changed places.

1. `Trials.receive` keeps the tensors of a layer until the layer has them all.
2. `Trials.try_loaded` runs each layer that was loaded, compares, and keeps one digest of its outputs; the tensors go.
3. `Trials.finish`, at the end of the round, runs each layer again: the digest must be the same.

So a trial needs memory for one layer's tensors. The tensors that arrived are digested as well; the trainer compares
that with its own, as it does with what other layers read back.

**Tolerance.** An output may differ from the reference by what rounding explains, and by no more:

    |output - reference| <= ulp / 2 + error

where `ulp` is the spacing of the output's type at the reference, and `error` bounds what the layer's own sums in
float32 and its rounded steps can add (`PackedLayer.reference`). The bound is no statistic: a healthy layer cannot
exceed it. Some kernels cut off what does not fit a bfloat16 instead of rounding to the nearest (vLLM's AVX-512 build),
so a layer passes if all of its outputs follow one of the two habits.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from openrlhf_mtp.sync.digest import add, digest
from openrlhf_mtp.sync.manifest import TensorSpec
from openrlhf_mtp.sync.readback import Probe, Rows

_UPPER_HALF = -(1 << 16)  # of a float32's bits: those that a bfloat16 keeps


@dataclass(frozen=True)
class Rounding:
    """A kernel's habit when a float32 does not fit its type.

    Attributes:
        cuts: towards zero instead of to the nearest.
    """

    cuts: bool

    def of(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        """Values (float64) as the kernel stores them in `dtype`, again in float64."""
        if self.cuts and dtype == torch.bfloat16:
            return (values.float().view(torch.int32) & _UPPER_HALF).view(torch.float32).double()
        return values.float().to(dtype).double()


NEAREST, CUT = Rounding(cuts=False), Rounding(cuts=True)


def roundings(dtype: torch.dtype) -> tuple[Rounding, ...]:
    """The habits that kernels have for a type."""
    return (NEAREST, CUT) if dtype == torch.bfloat16 else (NEAREST,)


@dataclass(frozen=True)
class Reference:
    """The outputs that a layer must give.

    Attributes:
        value: computed in float64 from the tensors that arrived [n, out].
        error: bounds what rounding before the last step can add [n, out].
    """

    value: Tensor
    error: Tensor

    def excess(self, output: Tensor, rounding: Rounding) -> float:
        """Largest distance of an output from its reference, in tolerances: at most 1 for a layer of these weights.

        Args:
            output: the layer's [n, out], in its own type.
            rounding: to that type, at the end.
        """
        _, exponent = torch.frexp(self.value.abs() + self.error)
        quarter = torch.finfo(output.dtype).eps / 4
        half_ulp = torch.ldexp(torch.full_like(self.value, quarter), exponent)
        middle = self.value - half_ulp * self.value.sign() if rounding.cuts else self.value
        return float(((output.double() - middle).abs() / (half_ulp + self.error)).max())


class PackedLayer(ABC):
    """A layer of an engine that is verified by a trial; it consists of parts that are tried one by one.

    Attributes:
        path: of the module in the model.
        specs: the checkpoint tensors that it is made of.
        copies: how many of the engine's workers hold the layer, or a shard of it.
        parts: how many there are.
        part: the singular word for one, in messages.
    """

    path: str
    specs: tuple[TensorSpec, ...]
    copies: int
    parts: int
    part: str

    @abstractmethod
    def is_loaded(self) -> bool:
        """Whether the layer can run: during a reload it has no weights until all of them have come."""

    @abstractmethod
    def inputs(self, probe: Probe) -> Tensor:
        """The inputs of a trial [n, width], in the layer's type; the same for each part and each call."""

    @abstractmethod
    def run(self, part: int, inputs: Tensor) -> Tensor:
        """This worker's outputs of one part [n, out], by the kernel that generation uses."""

    @abstractmethod
    def reference(
        self, part: int, inputs: Tensor, tensors: Mapping[str, Tensor], rounding: Rounding
    ) -> Reference:
        """The same from the tensors that arrived, by checkpoint name, with the kernel's rounding between its steps."""


class Trials:
    """The trials of one model in one verified round, on one worker.

    Args:
        layers: to be tried.
        probe: of the round; it chooses the inputs, and what of the received tensors is digested.

    Attributes:
        problems: a line for each layer that does not compute with what arrived.
        seconds: taken so far.
    """

    def __init__(self, layers: Sequence[PackedLayer], probe: Probe) -> None:
        self._layers, self._probe = layers, probe
        self._held: dict[str, dict[str, Tensor]] = {layer.path: {} for layer in layers}
        self._owners = {spec.name: layer.path for layer in layers for spec in layer.specs}
        self._outputs: dict[str, int] = {}  # digest by path
        self._received: list[list[Any]] = []  # rows
        self.problems: list[str] = []
        self.seconds = 0.0

    def receive(self, name: str, tensor: Tensor) -> None:
        """Keep a whole tensor that arrived, if a packed layer is made of it."""
        if name in self._owners:
            self._held[self._owners[name]][name] = tensor

    @torch.inference_mode()
    def try_loaded(self) -> None:
        """Try every layer that has been loaded since the last call."""
        begin = time.monotonic()
        for layer in self._layers:
            held = self._held[layer.path]
            if len(held) == len(layer.specs) and layer.is_loaded():
                digests = [self._probe.expected(tensor) for tensor in held.values()]
                self._received += [
                    [name, layer.path, layer.copies, found] for name, found in zip(held, digests, strict=True)
                ]
                self._try(layer, held)
                self._held[layer.path] = {}
        self.seconds += time.monotonic() - begin

    @torch.inference_mode()
    def finish(self) -> Rows:
        """At the end of the round: try what is left, and run each layer again.

        Returns:
            For each tensor of a packed layer the digest of what arrived; none of a layer that was not tried.
        """
        self.try_loaded()
        begin = time.monotonic()
        for layer in self._layers:
            if layer.path in self._outputs and self._run(layer) != self._outputs[layer.path]:
                self.problems.append(f"{layer.path}: changed between its loading and the end of the round")
        self.seconds += time.monotonic() - begin
        return self._received

    def _try(self, layer: PackedLayer, tensors: Mapping[str, Tensor]) -> None:
        habits = roundings(layer.inputs(self._probe).dtype)
        excess: list[list[float]] = [[] for _ in habits]

        def compare(part: int, inputs: Tensor, output: Tensor) -> None:
            for rounding, found in zip(habits, excess, strict=True):
                found.append(layer.reference(part, inputs, tensors, rounding).excess(output, rounding))

        self._outputs[layer.path] = self._run(layer, compare)
        best = min(excess, key=lambda found: len(_beyond(found)))
        if bad := _beyond(best):
            numbers, largest = ", ".join(map(str, bad)), max(best[part] for part in bad)
            self.problems.append(
                f"{layer.path}: {layer.part} {numbers}: not what arrived, off by {largest:.3g} tolerances"
            )

    def _run(self, layer: PackedLayer, look: Callable[[int, Tensor, Tensor], None] | None = None) -> int:
        """The digest of what the layer gives, part by part; `look` gets the part, the inputs and the outputs."""
        inputs, digests = layer.inputs(self._probe), []
        for part in range(layer.parts):
            output = layer.run(part, inputs)
            digests.append(digest(output, row_offset=part * len(inputs)))
            if look is not None:
                look(part, inputs, output)
        return add(*digests)


def _beyond(excess: Sequence[float]) -> list[int]:
    """The parts whose outputs rounding does not explain, NaN too."""
    return [part for part, value in enumerate(excess) if not value <= 1]

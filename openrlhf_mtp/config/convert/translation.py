"""From the flags of a script to the settings of a job file: today's names, and other values where they mean others."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from openrlhf_mtp.config.convert.arguments import Given, Unplaced
from openrlhf_mtp.config.convert.defaults import changed_defaults, shown_versions, versions_of
from openrlhf_mtp.config.convert.parts import HOLE, Holes
from openrlhf_mtp.config.errors import JobError
from openrlhf_mtp.config.reading.flag_spec import FlagSpec, FlagSpecs, FlagValue, Scalar
from openrlhf_mtp.config.reading.old_names import (
    DID_NOTHING,
    DROPPED,
    IS_CORRECTION_SCHEMES,
    SHORT_LIVED,
    name_today,
    old_names,
)

_LEVEL, _MODE = "algo.advantage.is_correction_level", "algo.advantage.is_correction_mode"
_SWITCHED_ON = frozenset({"enable_vllm_is_correction", "algo.advantage.is_correction_enable", "use_icepop"})
_SCHEME_NAMES = frozenset({"vllm_is_correction_type", "algo.advantage.is_correction_type"})
_LENGTHS = frozenset({"prompt_max_len", "generate_max_len"})
_CONSTANT: Mapping[str, str] = {
    "bf16": "bf16",
    "flash_attn": "flash_attention_2",
    "use_kl_estimator_k3": "k3",
}
"""Old switches that are a value of today's flag."""
_OLD_LENGTH = 1024
"""What prompt_max_len and generate_max_len were when left out."""


@dataclass(frozen=True)
class Setting:
    """One flag of the job file.

    Attributes:
        name: dotted.
        value: typed; texts may hold holes that are environment variables.
        written: the words of the script, for numbers that should look the same; empty when the value is another.
        line: of the script.
        was: the name in the script, "" when the name is the same.
        waits: the value is a number or a choice that an environment variable gives; the text is then its mark.
    """

    name: str
    value: FlagValue
    written: tuple[str, ...]
    line: int
    was: str = ""
    waits: bool = False


@dataclass
class Translation:
    """A job's settings by name, what found no place, and what to know."""

    settings: dict[str, Setting] = field(default_factory=dict)
    unplaced: list[Unplaced] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def translate(flags: list[Given], specs: FlagSpecs, holes: Holes) -> Translation:
    """Every flag under today's name; the last one counts when one is given twice, as in OpenRLHF."""
    return _Translator(specs, holes).run(flags)


class _Translator:
    def __init__(self, specs: FlagSpecs, holes: Holes) -> None:
        self.specs, self.holes = specs, holes
        self.out = Translation()

    def run(self, flags: list[Given]) -> Translation:
        by_name: dict[str, Given] = {}
        for given in flags:
            if given.name in by_name:
                first = by_name[given.name].line
                self.out.remarks.append(
                    f"--{given.name} is given in lines {first} and {given.line}; the last one counts, as in OpenRLHF"
                )
            by_name[given.name] = given
        for given in by_name.values():
            self._flag(given)
        self._lengths(by_name)
        self._correction(by_name)
        self._second_roles(by_name)
        self._remarks(by_name)
        return self.out

    def _flag(self, given: Given) -> None:
        name = given.name
        if name in self.specs:
            self._set(name, given, given.values)
        elif name in DID_NOTHING:
            self.out.remarks.append(f"--{name} (line {given.line}) is left out: {DROPPED[name]}")
        elif name in DROPPED:
            self._refuse(given, f"OpenRLHF has it no more: {DROPPED[name]}")
        elif name in _CONSTANT:
            self._set(name_today(name) or name, given, (_CONSTANT[name],))
        elif name not in _LENGTHS | _SCHEME_NAMES | _SWITCHED_ON:
            self._set(name_today(name) or name, given, given.values)

    def _set(self, name: str, given: Given, words: tuple[str, ...], was: str | None = None) -> None:
        """Type the words and file them under `name`, or say why not."""
        spec = self.specs[name]
        missing = [hole for word in words for hole in self.holes.within(word)]
        is_text = spec.kind == "str" and not spec.choices
        waits = bool(missing) and not is_text and spec.nargs is None and HOLE.fullmatch(words[0]) is not None
        if any(hole.variable is None for hole in missing) or not (not missing or is_text or waits):
            why = "; ".join(f"{hole.raw} {hole.reason}" for hole in missing)
            self._refuse(given, f"{why}; set {name}")
            return
        try:
            value = words[0] if waits else _typed(spec, words, self.holes)
        except JobError as problem:
            self._refuse(given, f"as {name}: {str(problem).removeprefix(f'{name}: ')}")
            return
        if name in self.out.settings:
            earlier = self.out.settings[name]
            self.out.remarks.append(
                f"{name} is set by lines {earlier.line} and {given.line}; the last one was kept"
            )
        shown = f"--{given.name}" if given.name != name else ""
        written = words if words == given.values else ()
        self.out.settings[name] = Setting(
            name, value, written, given.line, shown if was is None else was, waits
        )

    def _refuse(self, given: Given, why: str) -> None:
        words = " ".join([f"--{given.name}", *(self.holes.shown(word) for word in given.values)])
        self.out.unplaced.append(Unplaced(given.line, words, why))

    def _lengths(self, by_name: Mapping[str, Given]) -> None:
        """`data.max_len` holds prompt and response together since 0.9.8."""
        parts = [by_name[name] for name in ("prompt_max_len", "generate_max_len") if name in by_name]
        if not parts:
            return
        numbers = {each.name: self._whole(each) for each in parts}
        if None in numbers.values():
            return
        prompt = numbers.get("prompt_max_len") or _OLD_LENGTH
        response = numbers.get("generate_max_len") or _OLD_LENGTH
        last = parts[-1]
        self._set(
            "rollout.max_new_tokens",
            _like(last, response),
            (str(response),),
            self._was("generate_max_len", by_name),
        )
        was = f"{self._was('prompt_max_len', by_name)} + {self._was('generate_max_len', by_name)}"
        if "data.max_len" not in self.out.settings:
            self._set("data.max_len", _like(parts[0], prompt), (str(prompt + response),), was)
        self.out.remarks.append(
            f"prompts had at most {prompt} tokens; today only data.max_len, prompt and response together, bounds them"
        )

    @staticmethod
    def _was(name: str, by_name: Mapping[str, Given]) -> str:
        return f"--{name}" if name in by_name else f"{_OLD_LENGTH} (--{name} left out)"

    def _whole(self, given: Given) -> int | None:
        word = given.values[0]
        try:
            return int(word)
        except ValueError:
            holes = "; ".join(f"{hole.raw} {hole.reason}" for hole in self.holes.within(word))
            self._refuse(
                given, (holes or "got no whole number") + "; set data.max_len and rollout.max_new_tokens"
            )
            return None

    def _correction(self, by_name: Mapping[str, Given]) -> None:
        """Named schemes up to 0.11.0; today's level and mode."""
        switched = [by_name[name] for name in by_name if name in _SWITCHED_ON]
        named = [by_name[name] for name in by_name if name in _SCHEME_NAMES]
        enabled = [each for each in switched if each.name != "use_icepop"]
        if not enabled:
            for each in (*switched, *named):
                self._refuse(each, "it did nothing, because the script does not enable the correction")
            return
        scheme = named[-1].values[0] if named else "icepop" if len(switched) > len(enabled) else "tis"
        source = named[-1] if named else switched[-1]
        if scheme not in IS_CORRECTION_SCHEMES:
            for each in (*switched, *named):
                self._refuse(each, f"expected one of {', '.join(IS_CORRECTION_SCHEMES)} as its type")
            return
        level, mode = IS_CORRECTION_SCHEMES[scheme]
        self._set(_LEVEL, source, (level,), f"the correction {scheme}")
        self._set(_MODE, source, (mode,), f"the correction {scheme}")

    def _second_roles(self, by_name: Mapping[str, Given]) -> None:
        """Old flags that set actor and critic, or reference and reward model, at once."""
        for given in by_name.values():
            row = old_names().get(given.name)
            if row is None or row.also is None or row.now not in self.out.settings:
                continue
            if self.trains_critic if row.also.startswith("critic.") else self.runs_reward_model:
                self._set(row.also, given, given.values)
                self.out.remarks.append(
                    f"--{given.name} set both {row.now} and {row.also}; so does the job file"
                )

    @property
    def trains_critic(self) -> bool:
        """Whether the job has a critic, as OpenRLHF decides it."""
        return self._value("algo.advantage.estimator") == "gae"

    @property
    def runs_reward_model(self) -> bool:
        """Whether a reward model runs on GPUs."""
        return not self._value("reward.remote_url") and not self._value("train.agent_func_path")

    def _value(self, name: str) -> FlagValue:
        setting = self.out.settings.get(name)
        return self.specs[name].default if setting is None else setting.value

    def _remarks(self, by_name: Mapping[str, Given]) -> None:
        old = frozenset(name for name in by_name if name in old_names() or name in SHORT_LIVED)
        found = versions_of({name: by_name[name].line for name in old})
        if found is not None:
            self.out.remarks.append(f"the script is for OpenRLHF {shown_versions(*found)}")
            features = {"critic"} if self.trains_critic else set()
            features |= {"correction"} if _LEVEL in self.out.settings else set()
            given = frozenset(self.out.settings)
            self.out.remarks += changed_defaults(found[0], given, old, frozenset(features))
        elif any(name in old_names() for name in old):
            self.out.remarks.append(
                "no release of OpenRLHF has all of these flags: they are of different versions"
            )
        self.out.remarks += self._standing_remarks()

    def _standing_remarks(self) -> Iterator[str]:
        key = self._value("logger.wandb.key")
        if isinstance(key, str) and key and not HOLE.search(key) and "logger.wandb.key" in self.out.settings:
            yield "logger.wandb.key is in the job file as it was in the script, and in every run folder (run.yaml)"
        if self._value("ckpt.load_enable"):
            yield "ckpt.load_enable reads ckpt.path; to continue a run of your own, use train --resume instead"


def _like(given: Given, value: int) -> Given:
    return Given(given.name, (str(value),), given.line)


def _typed(spec: FlagSpec, words: tuple[str, ...], holes: Holes) -> FlagValue:
    """The words as OpenRLHF's parser would type them.

    Raises:
        JobError: got, expected.
    """
    if spec.kind == "switch":
        return spec.coerce(True)
    values = tuple(_scalar(spec, word, holes) for word in words)
    checked = spec.coerce(values if spec.nargs is not None else values[0])
    if spec.kind != "str":
        return checked
    return words if spec.nargs is not None else words[0]


def _scalar(spec: FlagSpec, word: str, holes: Holes) -> Scalar:
    wanted = {"int": "a whole number", "float": "a number", "str": "text"}[spec.kind]
    try:
        if spec.kind == "str":
            return holes.shown(word)
        return int(word) if spec.kind == "int" else float(word)
    except (ValueError, OverflowError):
        raise JobError(f"{spec.name}: got {holes.shown(word)}, expected {wanted}") from None

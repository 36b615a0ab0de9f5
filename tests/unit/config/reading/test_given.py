"""Nested and dotted, merged and overridden: one setting, one value, and the place it came from."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from openrlhf_mtp.config.errors import JobErrors
from openrlhf_mtp.config.reading.given import GivenSettings


@pytest.mark.parametrize(
    "text",
    [
        "mtp: {depths: 2, optim: {lr: 1e-3}}",
        "mtp.depths: 2\nmtp.optim.lr: 1e-3",
        "mtp: {depths: 2, optim.lr: 1e-3}",
        "mtp.optim: {lr: 1e-3}\nmtp: {depths: 2}",
        "x-base: &base {depths: 2}\nmtp: {<<: *base, optim: {lr: 1e-3}}",
        "x-base: &base {depths: 5, optim: {lr: 1e-3}}\nmtp: {depths: 2, <<: *base}",
    ],
)
def test_the_mtp_section_is_written_like_the_flags(load, text):
    mtp = load(text).mtp
    assert (mtp.depths, mtp.optim.lr) == (2, 1e-3)


@pytest.mark.parametrize(
    "text", ["mtp: {optim: }", "mtp: {depths: 3, optim: {}}", "mtp:\n  optim:\n  sync:\n"]
)
def test_an_empty_section_inside_mtp_takes_the_defaults(load, text):
    assert load(f"train: {{seed: 1}}\n{text}").mtp.depths == 3


@pytest.mark.parametrize("text", ["mtp:", "mtp:\n  # depths: 3\n"])
def test_an_mtp_section_with_nothing_in_it_is_pointed_out(load, text):
    job = load(f"train: {{seed: 1}}\n{text}")
    assert job.mtp is None
    [(setting, words)] = job.notes
    assert setting == "mtp"
    assert "plain OpenRLHF runs; write `mtp: {}`" in words


@pytest.mark.parametrize(
    ("text", "overrides"),
    [("mtp: null", []), ("mtp: ~", []), ("mtp:", ["mtp=null"]), ("mtp:", ["mtp.depths=3"]), ("mtp: {}", [])],
)
def test_what_is_said_on_purpose_is_not_pointed_out(load, text, overrides):
    assert load(f"train: {{seed: 1}}\n{text}", *overrides).notes == ()


def test_sections_for_anchors_mean_nothing_by_themselves(load):
    job = load("x-small: &small {seed: 3}\nx-other: [1, 2]\ntrain: *small")
    assert job.to_argv() == ["--train.seed=3"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "actor:\n  adam: 3",
            r"actor\.adam: got 3, expected a section, with keys such as actor\.adam\.lr \(line 2\)",
        ),
        ("train: []", r"train: got \[\], expected a section"),
        ("mtp: 3", r"mtp: got 3, expected a section, with keys such as mtp\."),
        ("mtp:\n\n  optim: fast", r"mtp\.optim: got 'fast', expected a section.* \(line 3\)"),
        ("nothing: {}", r"nothing: unknown key \(line 1\)"),
        ("train: {sed: {}}", r"train\.sed: unknown key; did you mean train\.seed\? \(line 1\)"),
        ("train: {seed: 1}\ntrain.seed: 2", r"train\.seed is given twice.*the other in line 1.*\(line 2\)"),
        (
            "mtp:\n  num_layers: 1",
            r"mtp\.num_layers: unknown key; it is called mtp\.num_blocks now \(line 2\)",
        ),
        ("mtp: {depths: 1}\nmtp.depths: 2", r"mtp\.depths is given twice.*\(line 2\)"),
        ("train:\n  seed: {a: 1}", r"train\.seed: got \{a: 1\}, expected a whole number \(line 2\)"),
        ("mtp:\n  depths: {a: 1}", r"mtp\.depths: got \{a: 1\}, expected a whole number .*\(line 2\)"),
        ("mtp:\n  depths: true", r"mtp\.depths: got true, expected a whole number .*\(line 2\)"),
        ("mtp: {depths: '3'}", r"mtp\.depths: got '3', expected a whole number, without quotes"),
        ("mtp: {depths: 1e400}", r"mtp\.depths: got 1e400, expected a whole number"),
        ("mtp: {depths: 0x3}", r"mtp\.depths: got '0x3', expected a whole number"),
        ("mtp: {optim: {lr: .inf}}", r"mtp\.optim\.lr: got \.inf, expected a finite number"),
        ("mtp: {optim: {lr: .nan}}", r"mtp\.optim\.lr: got \.nan, expected a number"),
        ("mtp: {optim: {lr: 1e400}}", r"mtp\.optim\.lr: got 1e400, expected a number of at most 1\.8e308"),
        ("mtp: {depths: null}", r"mtp\.depths: got nothing, expected a whole number"),
        (
            "mtp: {pretrain: {max_steps: 99999999999}}",
            r"max_steps: got 99999999999, expected a whole number of at",
        ),
        (
            "mtp: {regime: true}",
            r"mtp\.regime: got true, expected one of frozen, detach, joint_ce, joint_policy",
        ),
        (
            "mtp: {objective: 3}",
            r"mtp\.objective: got 3, expected one of ce, kl, .* or a mapping of such names",
        ),
        ("mtp: {objective: {ce: .nan}}", r"mtp\.objective: got \{ce: \.nan\}, expected one of ce, kl"),
        ("mtp: {objective: {x: 1}}", r"mtp\.objective: got \{x: 1\}, .* for example \{ce: 0\.3, kl: 0\.7\}"),
        ("mtp: {optim: {betas: 0.9 0.95}}", r"betas: got '0\.9 0\.95', expected a list of 2 numbers"),
        ("mtp: {optim: {betas: [0.9]}}", r"betas: got \[0\.9\], expected a list of 2 numbers"),
        ("mtp: {rollout: {speculate: 1}}", r"speculate: got 1, expected true or false"),
        ("mtp: {head: true}", r"mtp\.head: got true, expected text"),
        (
            "mtp:\n  depths: 2\n  num_blocks: 3",
            r"mtp\.num_blocks: got 3, expected at most depths = 2.*\(line 3\)",
        ),
        (
            "mtp:\n  guard: {min_acceptance_length: 9}",
            r"mtp\.guard\.min_acceptance_length: got 9.*\(line 2\)",
        ),
    ],
)
def test_a_wrong_value_is_said_in_yamls_words_with_its_line(load, text, expected):
    with pytest.raises(JobErrors, match=expected) as refusal:
        load(text)
    assert len(refusal.value.problems) == 1


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("data.input_template=007", "007"),
        ("data.input_template=# {}", "# {}"),
        ("data.input_template=a  b #c", "a  b #c"),
        ("data.input_template=- {}", "- {}"),
        ("data.input_template=[INST] {} [/INST]", "[INST] {} [/INST]"),
        ("data.input_template={a: 1}", "{a: 1}"),
        ("data.input_template=x\ny", "x\ny"),
        ("data.input_template='# {}'", "# {}"),
        ("data.input_template=a=b", "a=b"),
        ("data.input_template=!!int x", "!!int x"),
        ("data.input_template=", None),
        ("data.input_template=null", None),
        ("train.seed=1e3", 1000),
        ("actor.adam.betas=[0.8, 0.9]", (0.8, 0.9)),
        ("actor.adam={lr: 2e-6}", None),
    ],
)
def test_an_override_gives_the_value_that_it_shows(load, override, value):
    name = override.partition("=")[0]
    job = load("train: {seed: 1}\ndata: {input_template: other}", override)
    assert job.flags.get(name) == value
    assert name != "actor.adam" or job.value("actor.adam.lr") == 2e-6


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("mtp.objective={kl: 0.3, e2e_tv: 0.7}", {"kl": 0.3, "e2e_tv": 0.7}),
        ("mtp={objective: {kl: 1}}", {"kl": 1.0}),
        ("mtp.objective=tv", "tv"),
    ],
)
def test_a_mapping_is_given_as_an_override(load, override, expected):
    assert load("mtp: {objective: ce}", override).mtp.objective == expected


def test_null_for_a_section_takes_out_what_the_file_says_in_it(load):
    text = "actor: {adam: {lr: 1e-5}, model_name_or_path: Org/m}\nmtp: {depths: 2, optim: {lr: 1e-3}}"
    job = load(text, "actor.adam=null", "mtp.optim=null")
    assert job.to_argv() == ["--actor.model_name_or_path=Org/m"]
    assert (job.mtp.depths, job.mtp.optim.lr) == (2, 1e-4)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.seed", "override: got 'train.seed', expected key=value"),
        ("=3", "override: got '=3', expected key=value"),
        ("train.sed=3", r"train\.sed: unknown key; did you mean train\.seed\? \(command line\)"),
        ("train.seed=!!int x", r"train\.seed: got '!!int x', expected a whole number \(command line\)"),
        ("train.seed=.inf", r"train\.seed: got \.inf, expected a whole number \(command line\)"),
        ("train.seed=" + "9" * 5000, r"train\.seed: got '9{20}.* expected a whole number"),
        ("train=3", r"train: got 3, expected a section"),
        ("mtp=3", r"mtp: got 3, expected a section"),
        ("mtp.optim=fast", r"mtp\.optim: got 'fast', expected a section"),
        (
            "data.input_template=${NOBODY_SET_THIS}",
            r"data\.input_template: \$\{NOBODY_SET_THIS\}: the environment",
        ),
        (
            "data.input_template=a\udcff",
            r"data\.input_template: got \"a\\udcff\", expected text that UTF-8 can hold",
        ),
    ],
)
def test_a_wrong_override_is_named(load, override, expected):
    with pytest.raises(JobErrors, match=expected) as refusal:
        load("mtp: {depths: 2}", override)
    str(refusal.value).encode()


def test_the_file_and_the_command_line_are_wrong_at_once(load):
    with pytest.raises(JobErrors) as refusal:
        load("train: {sed: 1}\nmtp: {depth: 1, depths: 0}\n", "train.seed=x", "nonsense")
    assert len(refusal.value.problems) == 5


@given(
    st.from_regex(r"[-+]?[0-9]{1,12}(\.[0-9]{1,6})?([eE][-+]?[0-9]{1,3})?", fullmatch=True)
    | st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), min_size=1)
)
def test_text_on_the_command_line_is_the_text(text):
    assume("${" not in text and text[0] not in "'\"!")
    settings = GivenSettings(["name"], lambda name: True)
    settings.add_override(f"name={text}")
    value = settings.by_name["name"].value
    assert value == text or (value, text.strip().lower()) in [
        (None, "~"),
        (None, "null"),
        (True, "true"),
        (False, "false"),
    ]

"""The example with a real model: answers, tokenizer and split, and a script that continues where it stopped."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "smollm2_cpu"


@pytest.fixture(scope="module")
def modules():
    """The example's modules by their name; other examples have modules of the same names."""
    names = ("worked", "tasks", "reward", "policy_folder", "prepare", "figures", "run")
    before = {name: sys.modules.pop(name, None) for name in names}
    sys.path.insert(0, str(EXAMPLE))
    try:
        yield {name: __import__(name) for name in names}
    finally:
        sys.path.remove(str(EXAMPLE))
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("71", "71"),
        ("44 + 27 = 71<|im_end|>", "71"),
        ("First 44 + 27 = 71.\nThe answer is **71**.\n", "71"),
        ("Answer: bomb, KIND, political", "bomb, KIND, political"),
        ("The duration is 03:30:57", "03:30:57"),
        ("<answer>\n12\n</answer> and more", "12"),
        ("['-69', '13']", "['-69', '13']"),
        ('"nus"', "nus"),
        ("", None),
        ("<|im_end|>", None),
        ("The answer is", None),
    ],
)
def test_the_answer_is_what_the_last_line_introduces(modules, response, answer):
    assert modules["reward"].answer_of(response) == answer


def label(answer):
    return json.dumps({"family": "any", "entry": {"question": "q", "answer": answer, "metadata": {}}})


def scored_by(monkeypatch, modules, scorer):
    monkeypatch.setattr(modules["reward"], "_scorer", lambda family: scorer)
    return modules["reward"].reward_func


def test_the_familys_own_scorer_decides(modules, monkeypatch):
    reward = scored_by(monkeypatch, modules, lambda answer, entry: 1.0 if answer == entry["answer"] else 0.01)
    result = reward(["Q 71", "Q 72", "Q "], ["Q "] * 3, [label("71")] * 3)
    assert result["rewards"].tolist() == result["scores"].tolist() == [1.0, 0.0, 0.0]
    assert result["extra_logs"]["answered"].tolist() == [1.0, 1.0, 0.0]


@given(st.text())
def test_no_text_makes_the_reward_raise(response):
    import importlib.util

    spec = importlib.util.spec_from_file_location("smollm2_reward", EXAMPLE / "reward.py")
    reward = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reward)

    def scorer(answer, entry):
        raise SyntaxError("reasoning-gym evaluates answers")

    reward._scorer = lambda family: scorer
    assert reward.reward_func(["Q" + response], ["Q"], [label("1")])["rewards"].tolist() == [0.0]


@pytest.mark.parametrize("wrong", ["", "71", "{}", "[1]", '{"family": "gcd"}'])
def test_a_label_of_another_data_set_is_refused(modules, wrong):
    with pytest.raises(ValueError, match=r"as prepare\.py writes it"):
        modules["reward"].is_right("71", wrong)


@pytest.mark.parametrize(
    ("solution", "metadata", "answer", "text"),
    [
        ("running_total", {"expression": "6 + 2 - 3"}, "5", "6 + 2 = 8\n8 - 3 = 5"),
        ("smallest_first", {"number": 12, "factors": [2, 2, 3]}, "2 × 2 × 3", "12 = 2 × 6 = 2 × 2 × 3"),
        ("smallest_first", {"number": 7, "factors": [7]}, "7", "7"),
        (
            "divisors",
            {"numbers": [4, 6]},
            "2",
            "Divisors of 4: 1, 2, 4\nDivisors of 6: 1, 2, 3, 6\nGreatest in all: 2",
        ),
        ("letter_by_letter", {"word": "sun"}, "nus", "Letters: s u n\nBackward: n u s\nWord: nus"),
        ("repeated_sum", {"expression": "4 * 3"}, "12", "4 * 3 = 4 + 4 + 4 = 12"),
        ("repeated_sum", {"expression": "4 * 0"}, "0", "4 * 0 = 0"),
        ("word_by_word", {"span": ["The", "cat"], "target_letter": "t"}, "2", "T h e: 1\nc a t: 1\nTotal: 2"),
        ("answer_alone", {}, "yes", "yes"),
    ],
)
def test_a_worked_solution_ends_with_the_answer(modules, solution, metadata, answer, text):
    worked = getattr(modules["worked"], solution)({"answer": answer, "metadata": metadata})
    assert worked == text
    assert modules["reward"].answer_of(worked) == answer


def test_worked_solutions_precede_the_question(modules, monkeypatch):
    tasks = modules["tasks"]
    made = [{"question": f"{n}? ", "answer": str(n), "metadata": {"n": n}} for n in range(4)]
    monkeypatch.setattr(tasks.Task, "entries", lambda self, seed, size: iter(made[:size]))
    first, second = tasks.problems(tasks.Task("any", {"a": 1}, examples=2), seed=1, size=2)
    assert [turn["role"] for turn in first["input"]] == ["system", *["user", "assistant"] * 2, "user"]
    assert second["input"][-1]["content"] == "1?"
    assert json.loads(second["label"]) == {"family": "any", "entry": made[1]}


METADATA = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.tokens": [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "a",
        "b",
        "ab",
        "1",
        "2",
        "12",
        "Ġ",
    ],
    "tokenizer.ggml.token_type": [3, 3, 3, 1, 1, 1, 1, 1, 1, 1],
    "tokenizer.ggml.merges": ["a b", "1 2"],
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
    "tokenizer.ggml.unknown_token_id": 0,
    "tokenizer.ggml.padding_token_id": 2,
    "tokenizer.chat_template": "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}",
    "llama.context_length": 64,
}


def test_the_tokenizer_is_the_files_own(modules, tmp_path):
    from transformers import AutoTokenizer

    modules["policy_folder"].build_tokenizer(METADATA).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id) == (1, 2, 2)
    assert loaded("ab 12<|im_end|>")["input_ids"] == [5, 9, 6, 7, 2]  # a merge of letters, none of digits
    assert loaded.decode([5, 9, 6, 7]) == "ab 12"
    assert loaded.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False) == (
        "<|im_start|>a<|im_end|>"
    )


def test_another_kind_of_tokenizer_is_refused(modules):
    with pytest.raises(SystemExit, match=r"got the kind \('llama', 'smollm'\)"):
        modules["policy_folder"].build_tokenizer(METADATA | {"tokenizer.ggml.model": "llama"})


def test_a_response_ends_with_its_turn_or_its_document(modules):
    end_tokens = modules["policy_folder"].end_tokens
    assert end_tokens(METADATA["tokenizer.ggml.tokens"], 2) == [2, 0]
    assert end_tokens(["<|endoftext|>", "a"], 0) == [0]


def test_a_file_of_another_content_is_refused(modules, tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(SystemExit, match=r"got SHA-256 [0-9a-f]{64}, expected b179c9"):
        modules["policy_folder"].require_hash(tmp_path / "model.gguf")


def test_a_missing_package_is_named_with_its_installation(modules, monkeypatch):
    monkeypatch.setattr(modules["policy_folder"], "PACKAGE", "no-such-package")
    with pytest.raises(SystemExit, match=r"no-such-package: got 0 GGUF files.*requirements\.txt"):
        modules["policy_folder"].find_gguf()


def numbered(task, seed, size):
    for number in range(size):
        turns = [{"role": "user", "content": f"{task} example"}, {"role": "assistant", "content": "1"}]
        question = {"role": "user", "content": f"{task} {number % 12}" if number else f"{task} example"}
        yield {"input": [*turns, question], "label": "", "task": task}


def test_no_question_is_asked_twice_or_on_both_sides(modules, monkeypatch, tmp_path):
    prepare = modules["prepare"]
    monkeypatch.setattr(prepare, "problems", numbered)
    monkeypatch.setattr(prepare, "TASKS", ("a", "b"))
    prepare.write_data(tmp_path, train=12, evaluation=6, seed=1)
    asked = [
        [json.loads(line)["input"][-1]["content"] for line in (tmp_path / f"{name}.jsonl").open()]
        for name in ("train", "eval")
    ]
    assert [len(side) for side in asked] == [12, 6]
    assert len({*asked[0], *asked[1]}) == 18
    assert not {"a example", "b example"} & {*asked[0], *asked[1]}


def test_a_family_with_too_few_questions_is_named(modules, monkeypatch):
    monkeypatch.setattr(modules["prepare"], "problems", numbered)
    monkeypatch.setattr(modules["tasks"].Task, "name", "tiny")
    task = modules["tasks"].Task("tiny")
    with pytest.raises(SystemExit, match="tiny: too few different questions for 50 rows"):
        list(modules["prepare"].mixed([task], 50, 1, set()))


def test_every_stage_runs_the_job_in_its_folders(modules):
    made = {stage.name: stage for stage in modules["run"].stages(Path("runs/real"))}
    assert list(made) == ["prepare", "equip", "pretrain", "train", "report", "bench"]
    header = (EXAMPLE / "job.yaml").read_text(encoding="utf-8").partition("\nactor:")[0]
    for name in ("prepare", "equip", "pretrain", "train"):
        assert " ".join(made[name].command) in header, "the job file's header shows what runs"
    elsewhere = modules["run"].stages(Path("other"))
    assert "data.prompt_dataset=other/data/train.jsonl" in elsewhere[2].command


def test_a_finished_stage_is_not_run_again(modules, tmp_path, capfd):
    run, stage = modules["run"].run, modules["run"].Stage
    todo = [stage("one", ["sh", "-c", f"echo x >> {tmp_path}/ran"])]
    for _ in range(2):
        record = run(todo, tmp_path)
    assert (tmp_path / "ran").read_text() == "x\n"
    assert set(record.content["stages"]["one"]) == {"seconds", "peak_memory_gib"}
    assert "[1/1] one: done before" in capfd.readouterr().out


def test_a_stage_runs_again_when_its_input_or_an_earlier_stage_changed(modules, tmp_path):
    run, stage = modules["run"].run, modules["run"].Stage
    source = tmp_path / "source"
    todo = [stage("one", ["true"], [source]), stage("two", ["sh", "-c", f"echo x >> {tmp_path}/ran"])]
    for content in ("a", "b"):
        source.write_text(content)
        run(todo, tmp_path)
    assert (tmp_path / "ran").read_text() == "x\nx\n"


def test_a_failure_names_the_log_and_the_next_step(modules, tmp_path):
    log = tmp_path / "rl" / "driver.log"
    stage = modules["run"].Stage(
        "train", ["sh", "-c", f"mkdir {log.parent}; touch {log}; exit 3"], (), log.parent
    )
    with pytest.raises(SystemExit, match=r"exit code 3.*rl/driver\.log\nto continue: make real") as end:
        modules["run"].run([stage], tmp_path)
    assert "notices.jsonl" not in str(end.value), "nothing was said in this run"


def test_a_failure_before_there_is_a_log_names_none(modules, tmp_path):
    stage = modules["run"].Stage("train", ["sh", "-c", "exit 3"], (), tmp_path / "rl")
    with pytest.raises(SystemExit, match=r"exit code 3, the reason is above\nto continue: make real"):
        modules["run"].run([stage], tmp_path)


def test_a_stage_is_told_to_end_when_the_example_is(modules, tmp_path):
    """A scheduler sends SIGTERM to the process that it started."""
    pid = os.getpid()
    command = ["sh", "-c", f"trap 'exit 143' TERM; kill -TERM {pid}; while :; do sleep 0.05; done"]
    with pytest.raises(SystemExit, match="exit code 143"):
        modules["run"].run([modules["run"].Stage("train", command)], tmp_path)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_that_arrives_while_a_stage_starts_is_passed_on_too(modules, tmp_path, monkeypatch):
    popen = subprocess.Popen

    def started_then_told(words):
        process = popen(words)
        os.kill(os.getpid(), signal.SIGTERM)
        return process

    monkeypatch.setattr(modules["run"].subprocess, "Popen", started_then_told)
    command = ["sh", "-c", "while :; do sleep 0.05; done"]
    with pytest.raises(SystemExit, match=f"exit code {-signal.SIGTERM}"):
        modules["run"].run([modules["run"].Stage("train", command)], tmp_path)


@pytest.mark.parametrize(("continues", "word"), [(True, "--resume"), (False, "--overwrite")])
def test_a_run_that_is_there_is_continued_or_replaced(modules, tmp_path, continues, word):
    stage = modules["run"].Stage("train", ["x"], (), tmp_path)
    assert stage.words(continues=continues) == ["x"]
    (tmp_path / "run.yaml").touch()
    assert stage.words(continues=continues) == ["x", word]


def test_the_closing_table_holds_every_figure(modules):
    extent = {"first": 0.2, "last": 0.4, "min": 0.2, "max": 0.4, "mean": 0.3}
    names = ["eval/accuracy", "policy/reward", "spec/mean_acceptance_length", "spec/logprob_gap"]
    names += ["spec/acceptance_rate/depth_1", "spec/acceptance_rate/depth_2", "spec/length_gap"]
    summary = {"metrics": dict.fromkeys(names, extent), "time_share": {"rollout": 0.6}}
    bench = {"rows": [{"batch": 4, "ratio": 1.5, "plain_tok_s": [20.0], "drafted_tok_s": [30.0]}]}
    stages = {"train": {"seconds": 90.0, "peak_memory_gib": 7.25}}
    console = Console(file=io.StringIO(), width=120)
    console.print(modules["figures"].render(summary, bench, stages))
    text = console.file.getvalue()
    for figure in (
        "0.20 → 0.40",
        "0.30 0.30",
        "4.0e-01 nat",
        "+0.300 tokens",
        "batch 4 1.50× (20 → 30)",
        "90 s (train 90)",
        "7.2 GiB",
    ):
        assert figure in text
    assert "not measured" not in text

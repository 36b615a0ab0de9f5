"""The search for replacements finds every form of one, and leaves data alone."""

import pytest

from tests.unit.upstream.assignments import assignments

REPLACES = {
    "import torch\ntorch.cuda.synchronize = None": "synchronize",
    "from vllm.v1 import sampler as s\ns.Sampler.forward = None": "forward",
    "import openrlhf.trainer.ppo_trainer as ppo\nppo.PPOTrainer, x = 1, 2": "PPOTrainer",
    "def f(strategy):\n    def ours(): ...\n    strategy.backward = ours": "backward",
    "def f(runner):\n    runner.step = lambda: 1": "step",
    "class A:\n    def f(self):\n        def ours(): ...\n        self.engine.step = ours": "step",
    "def wrap(f): ...\ndef g(module):\n    module.get_node = wrap(module.get_node)": "get_node",
    "def f(owner, name):\n    setattr(owner, name, 1)": None,
    "def f(owner):\n    setattr(owner, 'run', 1)": "run",
    "def f(owner, name):\n    delattr(owner, name)": None,
    "def f(module):\n    module.__dict__['x'] = 1": "x",
    "def f(module):\n    vars(module)['x'] = 1": "x",
    "import sys\nsys.modules['flash_attn'] = 1": "flash_attn",
    "import sys\nsys.modules.update({})": None,
    "from unittest import mock": None,
    "import torch\ndel torch.cuda": "cuda",
}
DATA = (
    "import torch\nx = torch.zeros(1)\nx.grad = None",
    "from openrlhf_mtp.losses import types\ntypes.x = 1",
    "class A:\n    def f(self):\n        def ours(): ...\n        self.call = ours",
    "class A:\n    def f(self, name):\n        setattr(self, name, 1)",
    "import os\nos.environ['A'] = '1'",
    "def text(x): ...\ndef f(number, text):\n    number.written = text",
    "def f(args):\n    args.mtp = None",
)


@pytest.mark.parametrize("source", REPLACES)
def test_a_replacement_is_found(tmp_path, source):
    (tmp_path / "module.py").write_text(source)
    assert [one.name for one in assignments(tmp_path / "module.py")] == [REPLACES[source]]


@pytest.mark.parametrize("source", DATA)
def test_data_is_left_alone(tmp_path, source):
    (tmp_path / "module.py").write_text(source)
    assert assignments(tmp_path / "module.py") == []

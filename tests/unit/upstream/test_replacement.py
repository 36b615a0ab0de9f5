"""A binding replaces what is there, a wrapping lasts as long as its context, and neither fails silently."""

from types import ModuleType

import pytest

from openrlhf_mtp.upstream.replacement import Binding, ReplacementInactiveError, Wrapping

DECLARED = {
    "name": "ours",
    "target": "openrlhf.somewhere",
    "reason": "it is a test",
    "versions": "openrlhf 0.11.2",
}


def test_names_are_replaced_where_upstream_looks_them_up():
    module = ModuleType("openrlhf.somewhere")
    exec("class Actor: pass\ndef make(): return Actor()", module.__dict__)
    ours = type("OurActor", (), {})
    binding = Binding(**DECLARED, touches=("Actor",))
    assert binding.is_live(module)
    binding.bind(module, Actor=ours)
    assert isinstance(module.make(), ours)


def test_every_moved_seam_is_listed_and_nothing_is_half_bound():
    module = ModuleType("openrlhf.somewhere")
    module.Actor = original = object()
    binding = Binding(**DECLARED, touches=("Actor", "Trainer", "Engine"))
    assert not binding.is_live(module)
    with pytest.raises(AttributeError, match=r"openrlhf\.somewhere has no Trainer, Engine: .*0\.11\.2"):
        binding.bind(module, Actor=object(), Trainer=object(), Engine=object())
    assert module.Actor is original
    assert not hasattr(module, "Trainer")


def test_a_binding_replaces_nothing_that_it_does_not_name():
    module = ModuleType("openrlhf.somewhere")
    module.Actor = module.other = object()
    with pytest.raises(AssertionError, match="other"):
        Binding(**DECLARED, touches=("Actor",)).bind(module, other=object())


class Strategy:
    """Counts."""

    def backward(self, loss: int) -> int:
        return loss


WRAPPING = Wrapping(**DECLARED, touches=("Strategy.backward",))


def doubled(method):
    return lambda loss: 2 * method(loss)


def test_a_wrapping_ends_with_its_context():
    strategy, other = Strategy(), Strategy()
    with WRAPPING.around(strategy, doubled):
        assert strategy.backward(3) == 6
        assert other.backward(3) == 3
    assert strategy.backward(3) == 3
    assert vars(strategy) == {}


def test_a_wrapping_ends_with_an_error_too():
    strategy = Strategy()
    with pytest.raises(KeyError), WRAPPING.around(strategy, doubled):
        raise KeyError
    assert strategy.backward(3) == 3


def test_a_method_that_nobody_calls_any_more_is_noticed():
    message = r"Strategy\.backward.*not called.*it is a test"
    with pytest.raises(ReplacementInactiveError, match=message), WRAPPING.around(Strategy(), doubled):
        pass


def test_wrappings_of_two_methods_nest():
    strategy = Strategy()
    with WRAPPING.around(strategy, doubled), WRAPPING.around(strategy, doubled):
        assert strategy.backward(1) == 4

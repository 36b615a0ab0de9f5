"""A binding replaces a global that OpenRLHF really has, or says that the seam has moved."""

from types import ModuleType

import pytest

from openrlhf_mtp.upstream.openrlhf.bindings import bind


def test_names_are_replaced_where_upstream_looks_them_up():
    module = ModuleType("openrlhf.somewhere")
    exec("class Actor: pass\ndef make(): return Actor()", module.__dict__)
    ours = type("OurActor", (), {})
    bind(module, {"Actor": ours})
    assert isinstance(module.make(), ours)


def test_every_moved_seam_is_listed_and_nothing_is_half_bound():
    module = ModuleType("openrlhf.somewhere")
    module.Actor = original = object()
    with pytest.raises(AttributeError, match=r"openrlhf\.somewhere has no Trainer, Engine: .*0\.11\.2"):
        bind(module, {"Actor": object(), "Trainer": object(), "Engine": object()})
    assert module.Actor is original
    assert not hasattr(module, "Trainer")

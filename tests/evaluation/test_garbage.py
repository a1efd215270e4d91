"""The search for garbage is put off and taken up again."""

import gc

import pytest

from refinebox.evaluation.garbage import collection_paused


@collection_paused()
def fail() -> None:
    assert not gc.isenabled()
    raise ValueError("inside")


def test_collection_goes_on_afterwards_even_after_an_error() -> None:
    assert gc.isenabled()
    with pytest.raises(ValueError, match="inside"):
        fail()
    assert gc.isenabled()


def test_collection_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with collection_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()

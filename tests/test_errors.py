import inspect
import pickle

import pytest

from reco import errors

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, errors.RecoError)
]


@pytest.mark.parametrize("error_class", CLASSES)
def test_every_error_survives_the_way_between_processes(error_class):
    error = error_class("It broke.", "It was old.", "Buy a new one.")

    copy = pickle.loads(pickle.dumps(error))

    assert error_class is type(copy)
    assert ("It broke.", "It was old.", "Buy a new one.") == (copy.what, copy.why, copy.todo)
    assert str(error) == str(copy)


@pytest.mark.parametrize("error_class", CLASSES)
def test_every_message_says_what_why_and_what_to_do(error_class):
    text = str(error_class("It broke.", "It was old.", "Buy a new one."))

    assert "It broke.\n  why: It was old.\n  what to do: Buy a new one." == text


@pytest.mark.parametrize("error_class", CLASSES)
def test_the_tree_in_the_docstring_names_every_error(error_class):
    assert error_class.__name__ in (errors.__doc__ or "")


def test_a_caller_may_catch_the_builtin_instead():
    assert issubclass(errors.ConfigError, ValueError)
    assert issubclass(errors.ServiceUnavailable, ConnectionError)
    assert issubclass(errors.NotFound, LookupError)

import subprocess
import sys

import pytest

from reco.errors import ConfigError
from reco.settings import Settings, read_settings
from tests.conftest import ROOT


def test_every_setting_is_explained_here_and_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    for name, field in Settings.model_fields.items():
        assert field.description
        assert f"RECO_{name.upper()}" in readme


def test_a_misspelt_setting_is_refused_and_the_right_name_told(monkeypatch):
    monkeypatch.setenv("RECO_REDIS_URI", "redis://store")

    with pytest.raises(ConfigError, match=r"RECO_REDIS_URI .* did you mean RECO_REDIS_URL\?"):
        read_settings()


@pytest.mark.parametrize("key", ["no hexadecimal", "abcd", "ab" * 65])
def test_a_bad_link_key_is_refused_without_being_shown(monkeypatch, key):
    monkeypatch.setenv("RECO_LINK_KEY", key)

    with pytest.raises(ConfigError, match="RECO_LINK_KEY: must be") as caught:
        read_settings()
    assert key not in str(caught.value)


def test_all_mistakes_are_told_at_once(monkeypatch):
    monkeypatch.setenv("RECO_LINK_KEY", "abcd")
    monkeypatch.setenv("RECO_SMTP", "smtp://relay")

    with pytest.raises(ConfigError) as caught:
        read_settings()
    assert "RECO_LINK_KEY" in caught.value.why
    assert "RECO_SMTP is no setting" in caught.value.why


def test_a_home_that_is_named_stands_above_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("RECO_HOME", "elsewhere")

    assert "elsewhere" == str(read_settings().home)
    assert tmp_path == read_settings(tmp_path).home


def test_secrets_do_not_show(monkeypatch):
    monkeypatch.setenv("RECO_REDIS_URL", "redis://:geheim@store")

    assert "geheim" not in repr(read_settings())


def test_the_environment_is_not_read_at_import():
    code = "import os; os.environ['RECO_LINK_KEY'] = 'bad'; import reco.settings, reco.embedded"

    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)

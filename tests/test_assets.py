"""Outside files: right content or a clear refusal, never something in between."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile

import pytest

from course_lib.material import assets
from course_lib.material.assets import AssetError

TEXT = b"forty-two lines of real text\n" * 42
SHA = hashlib.sha256(TEXT).hexdigest()


@pytest.fixture
def one_asset(tmp_path, monkeypatch):
    """A manifest with one small asset whose only provider would need the network."""
    entry = {"what": "a test text", "licence": "MIT", "source": "here", "megabytes": 1,
             "providers": [{"package": "no-such-package-for-the-course==9.9.9", "in_package": "x"}],
             "files": {"text.txt": SHA}}
    monkeypatch.setattr(assets, "manifest", lambda: {"text": entry})
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.delenv("COURSE_OFFLINE", raising=False)  # the suite itself runs with the network forbidden
    monkeypatch.setattr(assets, "_verified", set())
    folder = tmp_path / "assets" / "text"
    folder.mkdir(parents=True)
    return entry, folder


def provider_that_brings(content: bytes):
    def bring(provider, files, target, megabytes, name):
        for file in files:
            (target / file).write_bytes(content)
    return bring


def test_a_good_file_is_handed_out(one_asset):
    _, folder = one_asset
    (folder / "text.txt").write_bytes(TEXT)
    assert assets.asset("text", "text.txt").read_bytes() == TEXT


@pytest.mark.parametrize("damage", [lambda t: t[:-1], lambda t: t.replace(b"real", b"fake"), lambda t: b""])
def test_a_changed_or_cut_file_is_refused_with_both_hashes(one_asset, damage):
    _, folder = one_asset
    (folder / "text.txt").write_bytes(damage(TEXT))
    with pytest.raises(AssetError) as refusal:
        assets.asset("text")
    assert "'text'" in str(refusal.value) and "text.txt" in str(refusal.value)
    assert SHA in str(refusal.value) and hashlib.sha256(damage(TEXT)).hexdigest() in str(refusal.value)
    assert "--repair" in str(refusal.value)


def test_a_file_changed_after_the_first_look_is_refused_too(one_asset):
    _, folder = one_asset
    (folder / "text.txt").write_bytes(TEXT)
    assets.asset("text")
    (folder / "text.txt").write_bytes(TEXT + b"and one more\n")
    with pytest.raises(AssetError, match="not the one we know"):
        assets.asset("text")


def test_repair_throws_away_only_what_is_damaged(one_asset):
    entry, folder = one_asset
    entry["files"]["other.txt"] = SHA
    (folder / "text.txt").write_bytes(b"damaged")
    (folder / "other.txt").write_bytes(TEXT)
    assert assets.repair() == ["text/text.txt"]
    assert (folder / "other.txt").exists() and not (folder / "text.txt").exists()


def test_offline_says_what_is_missing_and_who_could_bring_it(one_asset, monkeypatch):
    monkeypatch.setenv("COURSE_OFFLINE", "1")
    with pytest.raises(AssetError) as refusal:
        assets.asset("text")
    for needed in ("text.txt", "COURSE_OFFLINE=1", "no-such-package-for-the-course==9.9.9"):
        assert needed in str(refusal.value)


def test_a_wrong_hash_sends_us_to_the_next_provider(one_asset, monkeypatch):
    entry, folder = one_asset
    entry["providers"] = [{"package": "wrong==1", "in_package": ""}, {"hub": "right"}]
    monkeypatch.setattr(assets, "_from_package", provider_that_brings(b"something else"))
    monkeypatch.setattr(assets, "_from_hub", provider_that_brings(TEXT))
    assert assets.asset("text", "text.txt").read_bytes() == TEXT
    assert [f.name for f in folder.iterdir()] == ["text.txt"]


def test_when_every_provider_fails_nothing_is_kept_and_each_reason_is_told(one_asset, monkeypatch):
    entry, folder = one_asset
    entry["providers"] = [{"package": "wrong==1", "in_package": ""}, {"hub": "broken"}]

    def broken(*_):
        raise ConnectionError("no route")

    monkeypatch.setattr(assets, "_from_package", provider_that_brings(b"something else"))
    monkeypatch.setattr(assets, "_from_hub", broken)
    with pytest.raises(AssetError) as refusal:
        assets.asset("text")
    assert "wrong==1" in str(refusal.value) and "no route" in str(refusal.value) and SHA in str(refusal.value)
    assert list(folder.iterdir()) == []


def test_one_bad_file_of_two_keeps_neither(one_asset, monkeypatch):
    entry, folder = one_asset
    entry["files"]["other.txt"] = hashlib.sha256(b"other").hexdigest()
    monkeypatch.setattr(assets, "_from_package", provider_that_brings(TEXT))  # right for text.txt only
    with pytest.raises(AssetError):
        assets.asset("text")
    assert list(folder.iterdir()) == []


def test_a_wheel_is_read_as_a_zip_file_and_never_run(one_asset, tmp_path, monkeypatch):
    """A fake pip puts a wheel down whose Python code would leave a trace if anybody ran it."""
    entry, folder = one_asset
    entry["providers"] = [{"package": "pack==1", "in_package": "pack/data"}]
    trace = tmp_path / "code-was-run"
    wheel = tmp_path / "pack-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pack/__init__.py", f"open({str(trace)!r}, 'w')")
        archive.writestr("pack/data/text.txt", TEXT)
    pip = tmp_path / "pip.py"
    pip.write_text("import shutil, sys\n"
                   f"shutil.copy({str(wheel)!r}, sys.argv[sys.argv.index('--dest') + 1])\n")
    real = subprocess.Popen

    def fake_pip(command, **options):
        assert command[1:4] == ["-m", "pip", "download"] and "--no-deps" in command and "--only-binary=:all:" in command
        return real([sys.executable, str(pip), *command[4:]], **options)

    monkeypatch.setattr(assets.subprocess, "Popen", fake_pip)
    assert assets.asset("text", "text.txt").read_bytes() == TEXT
    assert not trace.exists() and [f.name for f in folder.iterdir()] == ["text.txt"]


def test_an_unknown_asset_or_file_lists_the_known_ones(one_asset):
    _, folder = one_asset
    (folder / "text.txt").write_bytes(TEXT)
    with pytest.raises(AssetError, match="lists: text"):
        assets.asset("txt")
    with pytest.raises(AssetError, match=r"it has: text\.txt"):
        assets.asset("text", "txet.txt")


def test_the_manifest_states_hash_licence_and_pinned_providers():
    for name, entry in assets.manifest().items():
        assert entry["licence"] and entry["what"] and entry["source"].startswith("https://"), name
        assert all(len(sha) == 64 and int(sha, 16) for sha in entry["files"].values()), name
        assert all("==" in p.get("package", "==") for p in entry["providers"]), name


def test_the_command_fails_with_a_sentence_not_a_traceback(tmp_path):
    command = subprocess.run([sys.executable, "-m", "course_lib.material.assets", "--check"],
                             capture_output=True, text=True, check=False,
                             env=os.environ | {"COURSE_CACHE": str(tmp_path)})
    assert command.returncode == 1 and "minilm-l6" in command.stderr and "Traceback" not in command.stderr

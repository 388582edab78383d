"""The way in: what a newcomer's machine lacks is said in one sentence, and a second start costs nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import conftest
import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))

import check  # noqa: E402
import lab  # noqa: E402
import lock  # noqa: E402
import set_up  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The smallest folder that set_up.py takes for the course."""
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    return tmp_path


def one_sentence(text: str) -> bool:
    """One line, no traceback, ends with a full stop."""
    return text.strip().endswith(".") and len(text.strip().splitlines()) == 1


# --- What may be missing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [(2, 7), (3, 8, 10), (3, 10, 99)])
def test_an_old_python_is_refused_with_the_way_out(version: tuple[int, ...]) -> None:
    with pytest.raises(set_up.SetUpError, match=r"needs Python 3\.11 or newer and this is") as caught:
        set_up.check_python(version, path="")
    assert one_sentence(str(caught.value)) and "install it" in str(caught.value)


def test_an_old_python_names_the_newer_one_beside_it(tmp_path: Path) -> None:
    newer = tmp_path / "python3.12"
    newer.touch(mode=0o755)
    with pytest.raises(set_up.SetUpError, match=r"PYTHON=python3\.12"):
        set_up.check_python((3, 9), path=str(tmp_path))


@pytest.mark.parametrize("version", [(3, 11), (3, 11, 2), (3, 14), (4, 0)])
def test_a_new_python_passes(version: tuple[int, ...]) -> None:
    set_up.check_python(version)


def test_the_set_up_script_can_be_read_by_an_old_python() -> None:
    """No syntax newer than Python 3.6, or the sentence about the old version would be a SyntaxError."""
    import ast

    tree = ast.parse((ROOT / "tools" / "set_up.py").read_text(), feature_version=(3, 7))
    newer = (ast.Match, ast.NamedExpr, ast.TryStar)
    assert not [node for node in ast.walk(tree) if isinstance(node, newer)]
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import)]
    imported = {name.name.split(".")[0] for node in imports for name in node.names}
    assert imported <= sys.stdlib_module_names - {"tomllib"}


def test_a_full_disk_is_refused_before_the_download(tmp_path: Path) -> None:
    with pytest.raises(set_up.SetUpError, match=r"has only 1\.2 GB left: free some space") as caught:
        set_up.check_disk(tmp_path, free_gb=1.2)
    assert one_sentence(str(caught.value))
    set_up.check_disk(tmp_path, free_gb=6)


def test_a_disk_that_fills_up_on_the_way_gives_one_sentence(checkout: Path, monkeypatch, capsys) -> None:
    def full(_root: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(set_up, "install", full)
    assert set_up.main(checkout) == 1
    said = capsys.readouterr().err
    assert "The disk is full" in said and one_sentence(said)


def test_a_python_without_venv_names_the_package(monkeypatch) -> None:
    monkeypatch.setattr(set_up.sys, "executable", "/bin/false")
    with pytest.raises(set_up.SetUpError, match="apt-get install python3-venv"):
        set_up.check_venv_module()


@pytest.mark.slow
def test_no_network_at_the_first_start_gives_one_sentence_and_the_next_run_goes_on(checkout: Path) -> None:
    (checkout / "tools").mkdir()
    script = checkout / "tools" / "set_up.py"
    script.write_text((ROOT / "tools" / "set_up.py").read_text())
    # A pip that knows only an address where nobody listens.
    cut_off = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    cut_off |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple"}

    def start() -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, str(script)], env=cut_off, capture_output=True, text=True, check=False)

    first, second = start(), start()
    for run in (first, second):
        assert run.returncode == 1
        assert run.stderr.strip().startswith("pip cannot reach its package index") and one_sentence(run.stderr)
    assert "Making the environment" in first.stdout
    assert "Making the environment" not in second.stdout, "the second run must keep what the first one made"
    assert not (checkout / ".venv" / "course-stamp.txt").exists()


# --- The second start ------------------------------------------------------------------------------------------------


def stamped(checkout: Path) -> Path:
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    stamp = checkout / ".venv" / "course-stamp.txt"
    stamp.write_text(set_up.stamp_text(checkout))
    return stamp


def test_a_second_start_does_nothing_and_is_quick(checkout: Path, monkeypatch) -> None:
    stamped(checkout)
    monkeypatch.setattr(set_up, "install", lambda _: pytest.fail("it installed again"))
    start = time.perf_counter()
    assert set_up.main(checkout) == 0
    assert time.perf_counter() - start < 0.5


def test_what_a_class_needs_is_installed_only_when_asked_for(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Path] = []
    monkeypatch.setattr(set_up, "install", lambda _: None)
    monkeypatch.setattr(set_up, "install_class", called.append)
    assert set_up.main(checkout) == 0 and called == []
    assert set_up.main(checkout, ["class"]) == 0 and called == [checkout]


@pytest.mark.parametrize("changed", ["pyproject.toml", "constraints.txt"])
def test_a_changed_version_file_installs_again(checkout: Path, monkeypatch, changed: str) -> None:
    stamped(checkout)
    (checkout / changed).write_text((checkout / changed).read_text() + "\n# changed\n")
    called = []
    monkeypatch.setattr(set_up, "install", called.append)
    assert set_up.main(checkout) == 0 and called == [checkout]


def test_an_installation_that_stopped_leaves_no_stamp(checkout: Path, monkeypatch) -> None:
    stamp = stamped(checkout)
    monkeypatch.setattr(set_up, "check_venv_module", lambda: None)
    monkeypatch.setattr(set_up, "make_environment", lambda venv: venv / "bin" / "python")
    monkeypatch.setattr(set_up, "index_answers", lambda _: True)
    monkeypatch.setattr(set_up, "install_cpu_torch", lambda *_: 0)
    monkeypatch.setattr(set_up.subprocess, "call", lambda *_, **__: 1)
    with pytest.raises(set_up.SetUpError, match="run the same command again"):
        set_up.install(checkout)
    assert not stamp.exists()


# --- One source of versions ------------------------------------------------------------------------------------------


def test_every_direct_dependency_is_pinned_within_its_bounds() -> None:
    from packaging.requirements import Requirement

    pinned = dict(pin.split("==") for pin in lock.pins((ROOT / "constraints.txt").read_text()))
    pinned = {lock.normal(name): version for name, version in pinned.items()}
    for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]:
        asked = Requirement(text)
        assert lock.normal(asked.name) in pinned, f"{asked.name} has no line in constraints.txt: run make lock"
        assert asked.specifier.contains(pinned[lock.normal(asked.name)]), f"{asked} against {pinned[asked.name]}"


def test_environment_yml_says_the_same_as_constraints_txt() -> None:
    expected = lock.environment_yml((ROOT / "constraints.txt").read_text(), PROJECT)
    assert (ROOT / "environment.yml").read_text() == expected, "run `python tools/lock.py --conda`"


def test_a_disagreement_between_the_two_files_is_seen() -> None:
    constraints = (ROOT / "constraints.txt").read_text()
    other = re.sub(r"^torch==.*$", "torch==0.0.1", constraints, flags=re.M)
    assert lock.environment_yml(other, PROJECT) != (ROOT / "environment.yml").read_text()


def test_the_pins_take_the_cpu_build_and_name_no_machine() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.!]+", line) for line in lines), "plain name==version only"
    assert not [line for line in lines if line.startswith(("nvidia", "triton", "cuda"))]


def test_every_pin_runs_on_the_oldest_python_of_the_readme() -> None:
    """Debian 12 brings Python 3.11.2: one pin that wants 3.11.5 would end a newcomer's first start."""
    oldest = re.search(r"\d+\.\d+", PROJECT["requires-python"])[0] + ".0"
    pinned = dict(pin.split("==") for pin in lock.pins((ROOT / "constraints.txt").read_text()))
    here = {lock.normal(found.name): found for found in distributions()}  # an extra may be missing
    wanted = {name: here[name].metadata["Requires-Python"] for name in map(lock.normal, pinned) if name in here}
    assert len(wanted) > 100
    assert not {name: needs for name, needs in wanted.items() if needs and oldest not in SpecifierSet(needs)}


def test_lock_drops_what_only_this_machine_has() -> None:
    freeze = "torch==2.13.0+cpu\n-e git+x#egg=course-lib\ncourse-lib==0.1.0\nfoo @ file:///tmp/foo.whl\nbar==1.0\n"
    assert lock.pins(freeze) == ["bar==1.0", "torch==2.13.0"]


# --- The commands ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("environment", "system", "expected"), [
    ({}, "Linux", False),
    ({"DISPLAY": ":0"}, "Linux", True),
    ({"WAYLAND_DISPLAY": "wayland-0"}, "Linux", True),
    ({"DISPLAY": ":0", "SSH_CONNECTION": "1 2 3 4"}, "Linux", False),
    ({}, "Darwin", True),
])
def test_lab_opens_a_browser_only_where_there_is_a_screen(environment: dict, system: str, expected: bool) -> None:
    assert lab.has_screen(environment, system) is expected


def test_lab_takes_the_next_port_if_one_is_in_use() -> None:
    import socket

    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        assert lab.free_port(port) > port


@pytest.mark.parametrize("options", [["--port=8999"], ["--port", "8999"], ["--ServerApp.port=8999"]])
def test_lab_takes_the_port_that_is_asked_for_and_hands_the_rest_on(options: list[str]) -> None:
    assert lab.port_and_rest([*options, "--ServerApp.token=x"]) == (8999, ["--ServerApp.token=x"])


def test_every_job_of_the_readme_is_a_target_and_make_help_lists_it() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    pages = (ROOT / "README.md").read_text() + (ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`make ([a-z]+)`", pages))
    assert {"lab", "test", "book", "teacher"} <= named
    for name in named:
        assert f"make {name}" in shown


def test_ci_calls_the_command_of_the_readme() -> None:
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "make test ALL=1"
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_a_red_stage_does_not_stop_the_others_and_the_sum_is_red(monkeypatch, capsys) -> None:
    say = "print('3 passed, 1 skipped in 0.10s')"
    monkeypatch.setattr(check, "stages", lambda everything: {
        "one": [sys.executable, "-c", "print('1 failed, 2 passed in 0.50s'); raise SystemExit(1)"],
        "two": [sys.executable, "-c", say],
    })
    assert check.main([]) == 1
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith("=== 1 failed, 5 passed, 1 skipped in ") and "red: one" in last


def test_all_green_sums_up_green(monkeypatch, capsys) -> None:
    monkeypatch.setattr(check, "stages", lambda _: {"two": [sys.executable, "-c", "print('3 passed in 0.10s')"]})
    assert check.main([]) == 0
    assert capsys.readouterr().out.strip().splitlines()[-1].startswith("=== 3 passed in ")


def test_a_stage_that_hangs_is_stopped() -> None:
    result = check.run("slow", [sys.executable, "-c", "import time; time.sleep(60)"], minutes=0.01)
    assert not result.ok and "hangs" in result.closing


def test_a_stage_aside_runs_meanwhile_and_says_its_lines_in_one_piece(monkeypatch, capfd, tmp_path: Path) -> None:
    """Each of the two waits for the other's file: one after the other, they would never end."""
    wait = ("import sys, time, pathlib as p; p.Path(sys.argv[1]).touch(); end = time.monotonic() + 60\n"
            "while not p.Path(sys.argv[2]).exists(): assert time.monotonic() < end; time.sleep(0.02)\n"
            "print('3 passed in 0.10s')")
    met = [str(tmp_path / name) for name in ("one", "two")]
    monkeypatch.setattr(check, "ASIDE", {"book"})
    monkeypatch.setattr(check, "stages", lambda _: {"tests": [sys.executable, "-c", wait, *met],
                                                    "book": [sys.executable, "-c", wait, *reversed(met)]})
    assert check.main([]) == 0
    said = capfd.readouterr().out
    assert re.search(r"=== book =+\n3 passed", said) and "=== 6 passed in " in said


# --- Two lanes -------------------------------------------------------------------------------------------------------


def marks_of(command: list[str]) -> str:
    """The expression behind pytest's -m (the first one is Python's own)."""
    found = [position for position, word in enumerate(command) if word == "-m"][1:]
    return command[found[0] + 1] if found else ""


def test_the_short_lane_leaves_out_what_is_slow_and_the_long_one_nothing(monkeypatch) -> None:
    monkeypatch.setattr(check, "chapters", lambda everything: ["all" if everything else "some"])
    short, long = check.stages(everything=False), check.stages(everything=True)
    assert long.keys() - short.keys() == {"mistakes"} and not short.keys() - long.keys()
    marks = {name: (marks_of(short[name]), marks_of(long[name])) for name in ("tests", "browser", "class")}
    assert marks == {"tests": ("not browser and not slow", "not browser"),
                     "browser": ("browser and not slow", "browser"), "class": ("not slow", "")}
    same = short.keys() - marks.keys() - {"notebooks"}
    assert all(short[name] == long[name] for name in same)
    assert "some" in short["notebooks"] and "all" in long["notebooks"]


def test_a_chapter_runs_in_the_short_lane_when_something_under_it_changed(monkeypatch) -> None:
    changed = {"ch07_minilm": "course_lib/methods/minilm.py changed", "ch05_tinybert": "chapter changed"}
    monkeypatch.setattr(check.chapter_files, "why_stale", lambda path: changed.get(path.stem, ""))
    names = [Path(name).name.partition("_")[0] for name in check.chapters(everything=False)]
    assert names == ["ch05", check.ALWAYS, "ch07"]  # the longest first
    every = check.chapters(everything=True)
    assert sorted(every) == sorted(f"notebooks/{path.stem}.ipynb" for path in check.chapter_files.sources([]))


def test_a_mistyped_stage_is_refused_with_the_stages_of_the_lane(capsys) -> None:
    assert check.main(["mistakes"]) == 2  # it belongs to the other lane
    said = capsys.readouterr().err
    assert "'mistakes'" in said and "notebooks, book, tests" in said


def test_files_that_go_first_exist() -> None:
    assert not [name for name in conftest.LONGEST if not (ROOT / "tests" / name).is_file()]
    stems = [path.stem for path in check.chapter_files.sources([])]
    for name in (*check.chapter_files.LONGEST, check.ALWAYS):
        assert [stem for stem in stems if stem.startswith(name)], name

"""Where students' code runs.

With bubblewrap (`apt-get install bubblewrap`): no network, a read-only tree that holds Python and its packages and
nothing else of the machine (not the course folder, not the submissions, not the home folders), a small /tmp of its
own, its own process numbers. Without it: a plain process with the same limits on memory, processor time, number of
processes and file size, which can see the files and the network of the user who grades. `kind()` says which one it is.

Started by root, the kernel gives root's rights away before it reads a line of the notebook.

nbgrader starts the kernel by the name `course-sandbox`; `kernelspec` writes it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from functools import cache
from pathlib import Path

import course_lib

INSIDE = Path(__file__).with_name("inside.py")
LIBRARY = Path(course_lib.__file__).parent
KERNEL = "course-sandbox"
LIMITS = {"memory_gb": 6, "processes": 64, "cpu_seconds": 150, "file_mb": 50}
# The library's own solutions. The exercises ask to write them, so a submission that calls them finds nothing.
HIDDEN = ("methods", "mistakes", "experiments", "_data")
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/ld.so.conf",
          "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime", "/opt/conda/lib")
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/tmp", "IPYTHONDIR": "/tmp/ipython",
               "MPLCONFIGDIR": "/tmp/matplotlib", "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
               "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONDONTWRITEBYTECODE": "1",
               "COURSE_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "COURSE_PROGRESS_FILE": "off",
               "CUDA_VISIBLE_DEVICES": ""}


@cache
def kind() -> str:
    """'bubblewrap' if it is installed and this machine lets it work, else 'plain'. COURSE_SANDBOX_KIND decides."""
    asked = os.environ.get("COURSE_SANDBOX_KIND", "")
    if asked:
        return asked
    if not shutil.which("bwrap"):
        return "plain"
    # Some containers have the program and forbid what it does.
    probe = ["bwrap", *_walls(), "--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64",
             "/lib64", "/usr/bin/true"]
    try:
        works = subprocess.run(probe, capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        works = False
    return "bubblewrap" if works else "plain"


def explained() -> str:
    """One sentence about the sandbox that this machine gives."""
    if kind() == "bubblewrap":
        return "Students' code runs in bubblewrap: no network, no access to your files, limits on memory and time."
    return ("Students' code runs in a plain process with limits on memory and time, but it CAN see your files and the "
            "network: install bubblewrap (apt-get install bubblewrap) to prevent that.")


def kernelspec(folder: Path, inputs: Path) -> int:
    """Write the kernel `course-sandbox` below `folder`, which must hold the connection files too.

    inputs: the hidden inputs of one assignment (without the numbers that they must give).
    Returns: the number of the user that the kernel runs as; 0 if it stays the one who grades.
    """
    user = 61000 + os.getpid() % 4000 if os.getuid() == 0 and _others_may_read() else 0
    within = kind() == "bubblewrap"
    settings = {"user": user, "limits": LIMITS, "folder": "/tmp" if within else str(folder), "environment": {
        **ENVIRONMENT, "COURSE_HIDDEN_INPUTS": "/course/inputs.json" if within else str(inputs)}}
    if not within:
        settings["environment"] |= {name: str(folder) for name in ("HOME", "IPYTHONDIR", "MPLCONFIGDIR")}
    command = _bubblewrap(folder, inputs) if within else [sys.executable, str(INSIDE)]
    spec = {"argv": [*command, "{connection_file}"], "display_name": "Sandbox", "language": "python",
            "interrupt_mode": "message", "env": {"COURSE_SANDBOX": json.dumps(settings)}}
    target = folder / "kernels" / KERNEL
    target.mkdir(parents=True, exist_ok=True)
    (target / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    return user


def sweep(user: int) -> None:
    """End what a submission left running. Inside bubblewrap everything has ended with the kernel already."""
    if not user or kind() == "bubblewrap":
        return
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and entry.stat().st_uid == user:
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue  # it ended by itself


def _walls() -> list[str]:
    return ["--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--new-session",
            "--die-with-parent", "--hostname", "sandbox", "--proc", "/proc", "--dev", "/dev"]


def _bubblewrap(folder: Path, inputs: Path) -> list[str]:
    command = ["bwrap", *_walls(), "--size", str(256 * 1024**2), "--tmpfs", "/tmp"]
    for path in SYSTEM:
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        elif os.path.exists(path):
            command += ["--ro-bind", path, path]
    shown = {path: path for path in (*_python_folders(), str(LIBRARY))}
    shown |= {"/course/inside.py": str(INSIDE), "/course/inputs.json": str(inputs)}
    parents = {str(up) for path in (*shown, str(folder / "run")) for up in Path(path).parents} - {"/", "/tmp"}
    for parent in sorted(parents):
        command += ["--perms", "0755", "--dir", parent]  # else only root could go through
    for path, real in shown.items():
        command += ["--ro-bind", real, path]
    for name in HIDDEN:
        if (LIBRARY / name).is_dir():
            command += ["--tmpfs", str(LIBRARY / name)]
    return [*command, "--bind", str(folder / "run"), str(folder / "run"), "--chmod", "1777", "/tmp",
            "--remount-ro", "/", "--chdir", "/tmp", sys.executable, "/course/inside.py"]


def _python_folders() -> list[str]:
    """Python itself and the folders that it imports from, without those that belong to the course."""
    course = LIBRARY.parent
    found = {sys.base_prefix, sys.prefix, *(path for path in sys.path if path.endswith(("-packages", "lib-dynload")))}
    wanted = sorted(path for path in found if os.path.isdir(path) and Path(path) not in (course, *course.parents))
    return [path for path in wanted if not path.startswith("/usr/") and path != "/usr"]


def _others_may_read() -> bool:
    """Whether a user without rights reaches Python and the library. Bubblewrap mounts them anew, without the folders
    above them."""
    wanted = [Path(path) for path in (*_python_folders(), str(LIBRARY), str(INSIDE.parent))]
    above = [] if kind() == "bubblewrap" else [parent for path in wanted for parent in path.parents]
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in (*wanted, *above))

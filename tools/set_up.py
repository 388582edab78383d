"""Install the course into .venv. Safe to run as often as you like: `make` runs it before every job.

    python3 tools/set_up.py            what a learner needs
    python3 tools/set_up.py class      and what grading a class needs on top

Only the standard library, and syntax that an old Python can still read: the first task is to say that it is too old.
A stamp in .venv remembers what was installed; while it is still true, nothing happens.
"""

import errno
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEWEST_OLD = (3, 10)  # the last Python that is too old
NEEDED_GB = 5
CPU_TORCH = "https://download.pytorch.org/whl/cpu"


class SetUpError(Exception):
    """Something that the learner can put right; the message is one sentence with the way out."""


def check_python(version, path=None):
    """Refuse an old Python, and name a newer one if this machine has it."""
    if tuple(version[:2]) > NEWEST_OLD:
        return
    found = [name for minor in range(20, NEWEST_OLD[1], -1)
             for name in [f"python3.{minor}"] if shutil.which(name, path=path)]
    way_out = (f"run the same command with PYTHON={found[0]} at its end" if found
               else "install it (Debian: apt-get install python3.11 python3.11-venv; else python.org or conda)")
    raise SetUpError(f"The course needs Python 3.11 or newer and this is {version[0]}.{version[1]}: {way_out}.")


def check_disk(folder, needed_gb=NEEDED_GB, free_gb=None):
    """Refuse to start a download that cannot end."""
    free_gb = shutil.disk_usage(str(folder)).free / 1e9 if free_gb is None else free_gb
    if free_gb < needed_gb:
        raise SetUpError(f"The set-up needs about {needed_gb} GB of disk and {folder} has only {free_gb:.1f} GB "
                         "left: free some space and run the same command again.")


def check_venv_module():
    """Debian and Ubuntu split venv off into a package of its own."""
    if subprocess.call([sys.executable, "-c", "import venv, ensurepip"], stderr=subprocess.DEVNULL) != 0:
        raise SetUpError("This Python cannot make virtual environments: run `apt-get install python3-venv` (as root), "
                         "then the same command again.")


def index_answers(python):
    """Ask pip's index for one tiny package, whatever index this machine is set to use."""
    ask = [str(python), "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed", "--retries", "0",
           "--timeout", "15", "--quiet", "--disable-pip-version-check", "hatchling"]
    return subprocess.call(ask, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0


def check_network(python):
    if not index_answers(python):
        raise SetUpError("pip cannot reach its package index: connect to the network (behind a proxy set HTTPS_PROXY) "
                         "and run the same command again; only the first start needs it.")


def stamp_text(root):
    """What .venv was made from. The folder counts too: a moved checkout leaves a broken environment behind."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((root / name).read_bytes())
    return f"{digest.hexdigest()}\n{sys.version.split()[0]}\n{root}\n"


def make_environment(venv):
    """Create .venv, or keep the one that an interrupted run left if it is whole and of this Python."""
    python = venv / "bin" / "python"
    same = f"import sys; raise SystemExit(sys.version.split()[0] != '{sys.version.split()[0]}')"
    whole = python.exists() and all(
        subprocess.call([str(python), *ask], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0
        for ask in (["-c", same], ["-m", "pip", "--version"]))
    if not whole:
        print("Making the environment .venv ...", flush=True)
        if subprocess.call([sys.executable, "-m", "venv", "--clear", str(venv)]) != 0:
            check_disk(venv.parent)
            raise SetUpError("The environment .venv could not be made: read the lines above, then run the same command "
                             "again.")
    return python


def wants_cpu_torch():
    """On Linux PCs the default torch brings several GB for NVIDIA cards; without such a card it is of no use."""
    return platform.system() == "Linux" and platform.machine() == "x86_64" and shutil.which("nvidia-smi") is None


def install_cpu_torch(pip, root):
    """Prefer the small CPU build: from the usual index if it is there, else from PyTorch's own. Not a must."""
    pins = dict(line.split("==") for line in (root / "constraints.txt").read_text().split() if "==" in line)
    wanted = "torch=={}+cpu".format(pins["torch"])
    has_it = [*pip, "install", "--dry-run", "--no-deps", "--quiet", wanted, "--retries", "0"]
    for index in ([], ["--index-url", CPU_TORCH, "--timeout", "10"]):
        if subprocess.call(has_it + index, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
            return subprocess.call([*pip, "install", "--no-deps", wanted, *index])
    print("The CPU build of torch was not found; the default build (much larger) works as well.", flush=True)
    return 0


def install(root):
    """Make the environment and install; every failure becomes one sentence."""
    venv = root / ".venv"
    stamp = venv / "course-stamp.txt"
    check_venv_module()
    check_disk(root, needed_gb=1 if stamp.exists() else NEEDED_GB)
    python = make_environment(venv)
    if stamp.exists():
        stamp.unlink()  # from here on the environment is unfinished until the new stamp says otherwise
    check_network(python)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    print("Installing the course's packages, about 2.3 GB; two minutes on a fast line ...", flush=True)
    failed = wants_cpu_torch() and install_cpu_torch(pip, root)
    everything = ["-c", str(root / "constraints.txt"), "-e", f"{root}[dev]"]
    failed = failed or subprocess.call([*pip, "install", *everything])
    if failed:
        for folder in (root, tempfile.gettempdir()):
            check_disk(folder, needed_gb=0.2)
        check_network(python)
        raise SetUpError("pip stopped (its reason stands above): run the same command again, what it fetched is kept; "
                         "if it stops at the same place, `make clean` starts afresh.")
    stamp.write_text(stamp_text(root))
    print("Set up.", flush=True)


def install_class(root):
    """Add nbgrader and Dask. nbgrader switches its own buttons on in JupyterLab; learners' Lab stays as it was."""
    venv = root / ".venv"
    python = venv / "bin" / "python"
    check_network(python)
    print("Installing what grading a class needs, about 80 MB ...", flush=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check"]
    if subprocess.call([*pip, "install", "--quiet", "-c", str(root / "constraints.txt"), "-e", f"{root}[class]"]):
        raise SetUpError("pip stopped (its reason stands above): run the same command again.")
    switched_on = venv / "etc" / "jupyter" / "jupyter_server_config.d" / "nbgrader.json"
    if switched_on.exists():
        switched_on.unlink()
    for extension in ("@jupyter/nbgrader", "@jupyter-notebook/lab-extension"):
        subprocess.call([str(venv / "bin" / "jupyter"), "labextension", "disable", extension],
                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (venv / "class-stamp.txt").write_text(stamp_text(root))


def is_fresh(stamp, root):
    return stamp.exists() and stamp.read_text() == stamp_text(root) and (root / ".venv" / "bin" / "python").exists()


def main(root=ROOT, extras=()):
    try:
        check_python(sys.version_info)
        if not is_fresh(root / ".venv" / "course-stamp.txt", root):
            install(root)
        if "class" in extras and not is_fresh(root / ".venv" / "class-stamp.txt", root):
            install_class(root)
    except SetUpError as error:
        sys.stderr.write(f"\n{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped. Run the same command again to go on.\n")
        return 130
    except OSError as error:
        problem = ("The disk is full: free about 5 GB" if error.errno == errno.ENOSPC
                   else f"The set-up could not write its files ({error}): put that right")
        sys.stderr.write(f"\n{problem} and run the same command again.\n")
        return 1
    return 0


if __name__ == "__main__":
    os.chdir(str(ROOT))
    sys.exit(main(extras=sys.argv[1:]))

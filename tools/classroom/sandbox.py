"""Where students' code runs.

With bubblewrap (`apt-get install bubblewrap`): no network, a read-only tree that holds Python and its packages and
nothing else of the machine (not the course folder, not the submissions, not the home folders), an empty environment,
folders of a fixed size for everything that can be written, its own process numbers. Without it: a plain process with
the same limits on memory, processor time, number of processes and file size, which can see the files and the network of
the user who grades. `kind()` says which one it is, `explained()` what that means.

Started by root, the process gives root's rights away before it reads a line of the notebook. A `Box` is one such
process with two pipes: requests go in, replies of limited length come out, and somebody watches from outside.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import course_lib
from classroom.untrusted import parsed

INSIDE = Path(__file__).with_name("inside.py")
LIMITS_FILE = Path(__file__).with_name("limits.py")
LIBRARY = Path(course_lib.__file__).parent
# What learners import while they answer; the rest of the library holds solutions. Of this, HIDDEN is not there either.
SHOWN = ("__init__.py", "notebook/__init__.py", "notebook/exercises")
HIDDEN = ("notebook/exercises/golden", "notebook/exercises/reference")
LIMITS = {"memory_mb": 1024, "processes": 64, "cpu_seconds": 150, "file_mb": 32}
MEMORY_MB = 1200  # of all processes of one submission together, watched from outside
TMP_MB = 64  # what fits into /tmp and /dev/shm each
START_SECONDS = 180  # Python and its imports, on a busy machine
WATCH_SECONDS = 0.2
PATIENCE = 6  # a step may take so many times its own time on a machine that does other things
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/ld.so.conf",
          "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime", "/opt/conda/lib")
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/tmp", "IPYTHONDIR": "/tmp/ipython",
               "MPLCONFIGDIR": "/tmp/matplotlib", "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
               "OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONDONTWRITEBYTECODE": "1",
               "COURSE_SOLUTIONS": "off",
               "COURSE_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "COURSE_PROGRESS_FILE": "off",
               "CUDA_VISIBLE_DEVICES": ""}


@cache
def kind() -> str:
    """'bubblewrap' if it is installed and this machine lets it work, else 'plain'. COURSE_SANDBOX_KIND decides."""
    asked = os.environ.get("COURSE_SANDBOX_KIND", "")
    if asked:
        return asked
    return "bubblewrap" if shutil.which("bwrap") and _works([]) else "plain"


def _works(options: list[str]) -> bool:
    """Some containers have the program and forbid what it does; older versions lack an option."""
    probe = ["bwrap", *options, *_walls(), "--ro-bind", "/usr", "/usr", "--symlink", "usr/lib", "/lib", "--symlink",
             "usr/lib64", "/lib64", "/usr/bin/true"]
    try:
        return subprocess.run(probe, capture_output=True, timeout=20, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def holds() -> bool:
    """Whether the instructor's files, environment and network are out of reach of what runs here."""
    return kind() == "bubblewrap"


def explained() -> str:
    """One sentence about the sandbox that this machine gives."""
    if kind() == "bubblewrap":
        return "Students' code runs in bubblewrap: no network, no access to your files, limits on memory and time."
    return ("Students' code runs in a plain process with limits on memory and time, but it CAN see your files, your "
            "environment and the network, and fill your disk, so what it prints is left out of the pages. Install "
            "bubblewrap (apt-get install bubblewrap) to prevent that.")


class Ended(Exception):
    """The process in the box is gone, or had to be ended; the message is half a sentence for the student."""


class NotStartedError(Exception):
    """The sandbox did not come up: nothing of a student's has run yet, so it is no student's fault."""


class Box:
    """One process for one submission: `ask` sends a request and returns its reply. Use it in a `with`."""

    def __init__(self) -> None:
        self.user = 61000 + os.getpid() % 4000 if os.getuid() == 0 and _others_may_read() else 0
        self.folder = None if kind() == "bubblewrap" else tempfile.mkdtemp(prefix="course-")
        self.ended_because = ""
        self._closing = threading.Event()
        self._before = set(_children())

    def __enter__(self) -> Box:
        environment = dict(ENVIRONMENT)
        if self.folder:
            environment |= {name: self.folder for name in ("HOME", "IPYTHONDIR", "MPLCONFIGDIR", "TMPDIR")}
            environment["PYTHONPATH"] = _python_path()
            os.chmod(self.folder, 0o700)
            if self.user:
                os.chown(self.folder, self.user, self.user)
            _adopt_orphans()
        command = [sys.executable, str(INSIDE)] if self.folder else _bubblewrap()
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment,
                                        stderr=subprocess.DEVNULL, start_new_session=True, bufsize=0)
        threading.Thread(target=self._watch, daemon=True).start()
        limits = LIMITS | {"processes": LIMITS["processes"] + (0 if os.getuid() == 0 else _tasks_of(os.getuid()))}
        try:
            self.ask({"user": self.user, "folder": self.folder or "/tmp", "limits": limits}, START_SECONDS)
        except Ended as error:
            self.close()
            raise NotStartedError(f"The sandbox did not start: its process {error}. Run the command again; if that "
                                  "does not help, see whether bubblewrap and this Python work.") from error
        self.runner = next((pid for pid in reversed(_family(self.process.pid))), self.process.pid)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything that the submission has started."""
        self._closing.set()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                stream.close()
        for _ in range(100):  # a process that starts others faster than they are ended is met again
            left = _family(self.process.pid) + (_processes_of(self.user) if self.user and self.folder else [])
            left += self._orphans()
            for pid in dict.fromkeys(left):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            if self.process.poll() is not None and not [pid for pid in left if pid != self.process.pid]:
                break
            time.sleep(0.01)
        self.process.wait()
        if self.folder:
            _reap()
            shutil.rmtree(self.folder, ignore_errors=True)

    def ask(self, request: dict[str, Any], seconds: float, most: int = 100_000) -> dict[str, Any]:
        """Send a request and return the reply.

        seconds: of the process's own time, in which waiting for a busy processor does not count. most: bytes of the
        reply. Raises: Ended.
        """
        body = json.dumps(request).encode("ascii")
        self._deadline = _Clock(getattr(self, "runner", 0), seconds)
        self._write(struct.pack("<I", len(body)) + body)
        (size,) = struct.unpack("<I", self._read(4))
        if size > most:
            raise self._end("sent far too much")
        reply = parsed(self._read(size), most)
        if not isinstance(reply, dict):
            raise self._end("sent something that cannot be read")
        return reply

    def _write(self, data: bytes) -> None:
        while data:
            self._wait(self.process.stdin, writing=True)
            try:
                data = data[os.write(self.process.stdin.fileno(), data[:65536]):]
            except OSError:
                raise self._end("ended the Python process") from None

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._wait(self.process.stdout)
            chunk = os.read(self.process.stdout.fileno(), min(size - len(data), 1 << 20))
            if not chunk:
                raise self._end("ended the Python process")
            data += chunk
        return bytes(data)

    def _wait(self, stream: Any, *, writing: bool = False) -> None:
        sets = ([], [stream], []) if writing else ([stream], [], [])
        while not any(select.select(*sets, 0.2)):
            if self.ended_because or self.process.poll() is not None:
                raise self._end("ended the Python process")
            if self._deadline.over():
                raise self._end("did not come to an end in its time")

    def _orphans(self) -> list[int]:
        """A submission's daemons, which the plain sandbox cannot keep in a family (see `_adopt_orphans`)."""
        return [pid for child in _children() if child not in self._before for pid in _family(child)
                ] if self.folder and _adopting else []

    def _end(self, why: str) -> Ended:
        self.ended_because = self.ended_because or why
        _kill(self.process.pid)
        return Ended(self.ended_because)

    def _watch(self) -> None:
        """What no limit of a single process can hold: all processes of the submission together."""
        while not self._closing.wait(WATCH_SECONDS):
            family = list(dict.fromkeys(_family(self.process.pid) + self._orphans()))
            if not family:
                return
            if sum(map(_memory, family)) > MEMORY_MB * 1024**2:
                self.ended_because = "took more memory than there is"
            elif sum(map(_processor_seconds, family)) > LIMITS["cpu_seconds"]:
                self.ended_because = "took more processor time than there is"
            elif len(family) > 2 * LIMITS["processes"]:
                self.ended_because = "started too many processes"
            else:
                continue
            _kill(self.process.pid)
            return


class _Clock:
    """The time that a process had: the time on the wall without the time that it waited for a processor."""

    def __init__(self, pid: int, seconds: float) -> None:
        self.pid, self.seconds, self.started = pid, seconds, time.monotonic()
        self.waited = _waited(pid)

    def over(self) -> bool:
        passed = time.monotonic() - self.started
        return passed - (_waited(self.pid) - self.waited) > self.seconds or passed > PATIENCE * self.seconds


def _waited(pid: int) -> float:
    """Seconds that a process was ready to run and did not get a processor; 0 where the system does not say."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


# --- processes, as Linux shows them; elsewhere these lists are empty --------------------------------------------------


def _statuses() -> dict[int, list[str]]:
    """Process -> the fields of its stat file after the name, which may hold anything."""
    found = {}
    for entry in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if entry.isdigit():
            with contextlib.suppress(OSError, IndexError):
                text = Path("/proc", entry, "stat").read_text(encoding="utf-8", errors="replace")
                found[int(entry)] = text[text.rindex(")") + 2:].split()
    return found


def _family(pid: int) -> list[int]:
    """A process and all that descend from it, parents first."""
    statuses = _statuses()
    children: dict[int, list[int]] = {}
    for child, fields in statuses.items():
        if fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(child)
    found = [pid] if pid in statuses and statuses[pid][0] != "Z" else []
    for parent in found:
        found += children.get(parent, [])
    return found


def _children() -> list[int]:
    """What this process has started, or adopted, and what has not ended."""
    return [pid for pid, fields in _statuses().items() if int(fields[1]) == os.getpid() and fields[0] != "Z"]


_adopting: list[bool] = []


def _adopt_orphans() -> None:
    """From now on a daemon of the plain sandbox belongs to this process, and can be found (Linux)."""
    if sys.platform == "linux" and not _adopting:
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
        close_to_others()
        _adopting.append(True)


def close_to_others() -> None:
    """Close this process's environment and memory to the other processes of its user (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _kill(pid: int) -> None:
    for one in _family(pid):
        with contextlib.suppress(OSError):
            os.kill(one, signal.SIGKILL)


def _processes_of(user: int) -> list[int]:
    found = []
    for entry in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        with contextlib.suppress(OSError):
            if entry.isdigit() and os.stat(f"/proc/{entry}").st_uid == user:
                found.append(int(entry))
    return found


def _tasks_of(user: int) -> int:
    total = 0
    for pid in _processes_of(user):
        with contextlib.suppress(OSError):
            total += len(os.listdir(f"/proc/{pid}/task"))
    return total


def _memory(pid: int) -> int:
    """Bytes of a process; what several share counts once, where Linux tells it."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    except (OSError, StopIteration):
        try:
            resident, shared = (int(part) for part in
                                Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1:3])
            return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError):
            return 0


def _processor_seconds(pid: int) -> float:
    """Seconds of a process and of its children that have ended."""
    fields = _statuses_of(pid)
    return sum(int(value) for value in fields[11:15]) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _statuses_of(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return text[text.rindex(")") + 2:].split()
    except (OSError, ValueError):
        return []


# --- bubblewrap -------------------------------------------------------------------------------------------------------


def _walls() -> list[str]:
    return ["--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--new-session",
            "--die-with-parent", "--hostname", "sandbox", "--proc", "/proc", "--dev", "/dev"]


@cache
def _closed_namespace() -> tuple[str, ...]:
    """For a user without root's rights: a user namespace of one's own, closed behind us (bubblewrap 0.8)."""
    wanted = ("--unshare-user", "--disable-userns")
    return wanted if os.getuid() and _works(list(wanted)) else ()


def _rights() -> tuple[str, ...]:
    """Of root's rights, those that it takes to give the rest away."""
    return () if os.getuid() else ("--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID")


def _writable(folder: str, *, everybody: bool = True) -> list[str]:
    return ["--perms", "1777" if everybody else "0755", "--size", str(TMP_MB * 1024**2), "--tmpfs", folder]


def _bubblewrap() -> list[str]:
    command = ["bwrap", *_closed_namespace(), *_rights(), *_walls(), *_writable("/dev/shm"), *_writable("/tmp")]
    for path in SYSTEM:
        if os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        elif os.path.exists(path):
            command += ["--ro-bind", path, path]
    shown = {path: path for path in _python_folders()}
    shown |= {str(LIBRARY / name): str(LIBRARY / name) for name in SHOWN}
    shown |= {f"/course/{file.name}": str(file) for file in (INSIDE, LIMITS_FILE)}
    parents = {str(up) for path in shown for up in Path(path).parents} - {"/", "/tmp"}
    for parent in sorted(parents):
        command += ["--perms", "0755", "--dir", parent]  # else only root could go through
    for path, real in shown.items():
        command += ["--ro-bind", real, path]
    for folder in (str(LIBRARY / name) for name in HIDDEN if (LIBRARY / name).is_dir()):
        command += [*_writable(folder, everybody=False), "--remount-ro", folder]
    return [*command, "--remount-ro", "/dev", "--remount-ro", "/", "--setenv", "PYTHONPATH", _python_path(),
            "--chdir", "/tmp", sys.executable, "/course/inside.py"]


def _python_path() -> str:
    """Where the sandbox's Python finds the library, and the packages that this one uses."""
    return os.pathsep.join([str(LIBRARY.parent), *(path for path in sys.path if path.endswith("-packages"))])


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

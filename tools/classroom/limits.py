"""What a process in the sandbox takes upon itself before it reads a line of a student's: limits, and calls forbidden.

It uses the standard library only, because it lies beside `inside.py` in the sandbox, where nothing of `classroom` is.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import struct

MEGABYTE = 1024**2

# Linux's calls that a student's code has no need of, by number: (x86_64, aarch64).
FORBIDDEN = {
    # memory that belongs to no process: no limit of a process counts it
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186),
    # another user namespace would give root's rights in it, and with them calls that hold more holes
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "pivot_root": (155, 41),
    # looking into other processes, and parts of the kernel that have had many holes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "bpf": (321, 280),
    "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "open_by_handle_at": (304, 265),
}
_CLONE, _CLONE3 = (56, 220), (435, 435)
_ARCHITECTURE = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEWUSER, NEWNS, NEWPID, NEWNET, NEWIPC, NEWUTS, NEWCGROUP
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF, see linux/filter.h
_ALLOW, _REFUSE, _UNKNOWN = 0x7FFF0000, 0x00050000 | 1, 0x00050000 | 38  # EPERM; ENOSYS, so that libc uses clone
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER, _PARENT_DIES = 38, 22, 2, 1  # numbers of prctl


def limit(memory_mb: int, processes: int, cpu_seconds: int, file_mb: int) -> None:
    """Limits of this process and of everything that it starts.

    memory_mb: beyond the address space that this process has now. processes: beyond those that this user has now.
    """
    wanted = {resource.RLIMIT_AS: _address_space() + memory_mb * MEGABYTE,
              resource.RLIMIT_NPROC: _tasks_of_this_user() + processes, resource.RLIMIT_CPU: cpu_seconds,
              resource.RLIMIT_FSIZE: file_mb * MEGABYTE, resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: 256}
    for kind, most in wanted.items():
        with contextlib.suppress(ValueError, OSError):  # the system's own limit may be lower, or there is none
            resource.setrlimit(kind, (most, most))


def _address_space() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # macOS
        return 4096 * MEGABYTE


def _tasks_of_this_user() -> int:
    """Linux counts all threads of a user, wherever they were started, so a busy desktop has a few thousand."""
    mine, total = os.getuid(), 0
    for entry in os.listdir("/proc") if os.path.isdir("/proc/self/task") else ():
        with contextlib.suppress(OSError):
            if entry.isdigit() and os.stat(f"/proc/{entry}").st_uid == mine:
                total += len(os.listdir(f"/proc/{entry}/task"))
    return total


def forbid() -> bool:
    """Refuse FORBIDDEN and new namespaces from now on, also in everything that this process starts.

    Returns: whether it worked; only Linux has it.
    """
    if platform.system() != "Linux" or platform.machine() not in _ARCHITECTURE:
        return False
    column, architecture = _ARCHITECTURE[platform.machine()]
    lines = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _REFUSE), (_LOAD, 0, 0, 0),
             (_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _REFUSE)]  # x32 has the same calls under other numbers
    for numbers in FORBIDDEN.values():
        lines += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _REFUSE)]
    lines += [(_EQUAL, 0, 1, _CLONE3[column]), (_RETURN, 0, 0, _UNKNOWN),  # its flags lie where a filter cannot look
              (_EQUAL, 0, 3, _CLONE[column]), (_LOAD, 0, 0, 16), (_ANY_BIT, 0, 1, _NEW_NAMESPACES),
              (_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *line) for line in lines))
    described = struct.pack("HxxxxxxQ", len(lines), ctypes.addressof(program))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    return prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0 and prctl(_SECCOMP, _FILTER, described, 0, 0) == 0


def end_with_parent() -> None:
    """Let this process end when the one that started it ends (Linux; elsewhere the grader ends it)."""
    if platform.system() == "Linux":
        ctypes.CDLL(None).prctl(_PARENT_DIES, 9, 0, 0, 0)


def become(user: int) -> None:
    """Give root's rights away for good. The user's number is used by nobody else, so its processes can be counted."""
    if user and os.getuid() == 0:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)

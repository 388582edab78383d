"""Run a learner's function so that nothing it does can hurt the notebook.

On Linux the calls run in a forked child: an endless loop is killed, `os._exit` ends the child only, memory is
limited, and changed globals vanish with the child. What comes back through a pipe is plain numbers, so the code
under test never meets the numbers it is compared with. Elsewhere (macOS, Windows, after CUDA has started, where a
fork is not safe) a fresh Python runs the function's text, with the same protection; `fresh.py` is that side. Only a
function whose text cannot be found runs in this process, with an alarm, or in a thread that is given up in time.

This protects a learner from an accident. It is not a sandbox against an attacker: grading a class runs whole
notebooks in one.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import select
import signal
import struct
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from course_lib.notebook.exercises.values import Value, from_python

MOST_PATIENCE = 6  # times its time, whatever else the machine does
STUB = r"(ch\d\d|lab\d)\.q\d+"  # what a stub raises its NotImplementedError with; PyTorch raises others
EXTRA_MEMORY = 2 * 1024**3  # bytes that the function may take beyond what the notebook already holds


@dataclass(frozen=True)
class Call:
    """One call of the function under test. `gradient_of` names a position in args whose gradient is wanted too."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    gradient_of: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What one call did: an answer (and its gradient), or one sentence about what went wrong."""

    answer: Value | None = None
    gradient: Value | None = None
    trouble: str = ""
    not_started: bool = False


class _OutOfTime(BaseException):
    """Not an Exception, so that `except Exception` in the learner's code does not swallow it."""


def run(function: Callable[..., Any], calls: Sequence[Call], seconds: float,
        elsewhere: Callable[..., list[Outcome] | None] | None = None) -> list[Outcome]:
    """Make the calls in order, stop after the first that fails, give up after `seconds` for all of them together.

    elsewhere: where a fork is not safe, this is asked to make the calls (`fresh.run`); None from it: it cannot.
    """
    if sys.platform == "linux" and not torch.cuda.is_initialized():
        return _in_a_child(function, calls, seconds)
    outcomes = elsewhere(function, calls, seconds) if elsewhere else None
    return _in_this_process(function, calls, seconds) if outcomes is None else outcomes


def late(seconds: float) -> Outcome:
    return Outcome(trouble=f"Your function did not finish within {seconds:g} seconds. Look for a loop that never ends.")


# --- the calls themselves ---------------------------------------------------------------------------------------------


def each(function: Callable[..., Any], calls: Sequence[Call], report: Callable[[Outcome], None]) -> None:
    """Make the calls in order and report each outcome; stop after the first that fails."""
    for call in calls:
        outcome = _one(function, call)
        report(outcome)
        if outcome.trouble or outcome.not_started:
            return


def _one(function: Callable[..., Any], call: Call) -> Outcome:
    args, kwargs = _copied(call.args), _copied(call.kwargs)
    if call.gradient_of is not None:
        args[call.gradient_of].requires_grad_()
    tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
    before = [(value._version, value.detach().clone()) for value in tensors]
    around = _surroundings(function)
    try:
        raw = function(*args, **kwargs)
        changed = any(t._version != v or not _identical(t, old) for t, (v, old) in zip(tensors, before, strict=True))
        if changed or not _same_plain((args, kwargs), (call.args, call.kwargs)):
            return Outcome(trouble="Your function changes its input. Work on a copy: the caller still needs the input.")
        if spoilt := [name for name, mark in _surroundings(function).items() if around.get(name) != mark]:
            return Outcome(trouble=f"Your function changes {spoilt[0]}, which is not its own. Use variables of the "
                                   "function, and leave everything outside of it as it was.")
        answer = from_python(raw)
        gradient = None if call.gradient_of is None else _gradient(raw, args[call.gradient_of])
        return Outcome(answer, gradient)
    except _OutOfTime:
        raise
    except BaseException as error:
        return _failed(error, function)


def _failed(error: BaseException, function: Callable[..., Any]) -> Outcome:
    if isinstance(error, NotImplementedError) and re.fullmatch(STUB, str(error)):
        return Outcome(not_started=True)
    if isinstance(error, MemoryError):
        return Outcome(trouble="Your function asks for more memory than there is. Look at the shapes you create.")
    return Outcome(trouble=_what_happened(error, function))


def _surroundings(function: Callable[..., Any]) -> dict[str, Any]:
    """Marks of what a function could spoil outside of itself: PyTorch's settings, and the globals that it names."""
    found: dict[str, Any] = {"PyTorch's default type": torch.get_default_dtype(),
                             "whether PyTorch records gradients": torch.is_grad_enabled()}
    own, code = getattr(function, "__globals__", None), getattr(function, "__code__", None)
    for name in getattr(code, "co_names", ()) if type(own) is dict else ():
        value = own.get(name)
        size = len(value) if type(value) in (list, dict, set) else 0
        with contextlib.suppress(RuntimeError):  # a tensor made in inference mode counts no changes
            size = value._version if type(value) is Tensor else size
        found[f"the global {name}"] = (name in own, id(value), size)
    return found


def _gradient(raw: object, wanted: Tensor) -> Value | None:
    if type(raw) is not Tensor or not raw.requires_grad or raw.numel() != 1:
        return None
    (gradient,) = torch.autograd.grad(raw.sum(), wanted, allow_unused=True)
    return None if gradient is None else from_python(gradient)


def _copied(values: Any) -> Any:
    """Fresh copies for every call, so that one call cannot spoil the next."""
    if isinstance(values, Tensor):
        return values.clone()
    if isinstance(values, dict):
        return {key: _copied(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return [_copied(value) for value in values]
    return set(values) if isinstance(values, set) else values


def _identical(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.detach().nan_to_num(), b.nan_to_num())


def _same_plain(now: Any, before: Any) -> bool:
    """Lists, sets and dicts are unchanged too; tensors were compared already."""
    if isinstance(before, Tensor):
        return True
    if isinstance(before, dict):
        return now.keys() == before.keys() and all(_same_plain(now[key], before[key]) for key in before)
    if isinstance(before, (list, tuple)):
        return len(now) == len(before) and all(_same_plain(a, b) for a, b in zip(now, before, strict=True))
    return now == before


def _what_happened(error: BaseException, function: Callable[..., Any]) -> str:
    name, said = type(error).__name__, ""
    with contextlib.suppress(Exception):
        said = " ".join(str(error).split())
    if "can't allocate memory" in said or "not enough memory" in said:
        return "Your function asks for more memory than there is. Look at the shapes you create."
    if isinstance(error, RecursionError):
        said = "it calls itself without an end"
    code = getattr(function, "__code__", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__)
             if code and frame.filename == code.co_filename and frame.name == code.co_name]
    where = f" (line {lines[0] - code.co_firstlineno + 1} of your function)" if lines else ""
    said = said if len(said) <= 200 else said[:197] + "..."
    return f"Your function stops with {name}{': ' + said if said else ''}{where}."


# --- in a child -------------------------------------------------------------------------------------------------------


def _in_a_child(function: Callable[..., Any], calls: Sequence[Call], seconds: float) -> list[Outcome]:
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a kernel has threads; the child runs one and ends
        pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _child(function, calls, write_end)
    os.close(write_end)
    try:
        outcomes, ended = _collect(read_end, _Clock(pid, seconds))
    finally:
        os.close(read_end)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
    complete = len(outcomes) == len(calls) or (outcomes and (outcomes[-1].trouble or outcomes[-1].not_started))
    if not complete:
        outcomes.append(Outcome(trouble="Your function ended the whole Python process.") if ended else late(seconds))
    return outcomes


class _Clock:
    """The time that a child had: what passed on the wall, without the time that it waited for a busy processor."""

    def __init__(self, pid: int, seconds: float) -> None:
        self.pid, self.seconds, self.started = pid, seconds, time.monotonic()

    def left(self) -> float:
        """Seconds that the child may still take."""
        passed = time.monotonic() - self.started
        return min(self.seconds - passed + self._waited(), MOST_PATIENCE * self.seconds - passed)

    def _waited(self) -> float:
        try:
            with open(f"/proc/{self.pid}/schedstat", encoding="ascii") as file:
                return int(file.read().split()[1]) / 1e9
        except (OSError, ValueError, IndexError):  # not every system counts it
            return 0.0


def _collect(read_end: int, clock: _Clock) -> tuple[list[Outcome], bool]:
    """Outcomes from the pipe until it closes or the time is over; the flag says that it closed."""
    data = b""
    while (left := clock.left()) > 0:
        ready, _, _ = select.select([read_end], [], [], left)
        if not ready:
            continue
        chunk = os.read(read_end, 1 << 20)
        if not chunk:
            return _unpack(data), True
        data += chunk
    return _unpack(data), False


def _unpack(data: bytes) -> list[Outcome]:
    outcomes = []
    while len(data) >= 8:
        (size,) = struct.unpack("<Q", data[:8])
        if len(data) < 8 + size:
            break
        outcomes.append(from_plain(json.loads(data[8:8 + size])))
        data = data[8 + size:]
    return outcomes


def from_plain(plain: dict[str, Any]) -> Outcome:
    """Rebuild an Outcome from JSON, which can carry numbers and words but, unlike pickle, no code."""
    def value(stored: dict[str, Any] | None) -> Value | None:
        if stored is None:
            return None
        items = stored["items"] and tuple(value(i) if isinstance(i, dict) else i for i in stored["items"])
        return Value(stored["kind"], tuple(stored["shape"]), stored["dtype"], items if items is None else tuple(items))

    return Outcome(value(plain["answer"]), value(plain["gradient"]), plain["trouble"], plain["not_started"])


def _child(function: Callable[..., Any], calls: Sequence[Call], write_end: int) -> None:
    try:
        os.setsid()  # so that whatever it starts ends with it
        _make_quiet()
        _limit_memory()
        torch.set_num_threads(1)  # the parent's thread pool did not survive the fork

        def report(outcome: Outcome) -> None:
            try:
                body = json.dumps(asdict(outcome)).encode()
            except (TypeError, ValueError):  # a number or an object that has no plain form
                unreadable = Outcome(trouble="What your function returns holds something that is no plain number.")
                body = json.dumps(asdict(unreadable)).encode()
            message = struct.pack("<Q", len(body)) + body
            while message:
                message = message[os.write(write_end, message):]

        each(function, calls, report)
    finally:
        os._exit(0)


def _make_quiet() -> None:
    """Whatever the function prints or asks for would otherwise reach the notebook out of turn."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    logging.disable(logging.CRITICAL)  # ipykernel warns of display() in a fork
    sys.stdout, sys.stderr, sys.stdin = io.StringIO(), io.StringIO(), io.StringIO()
    import builtins

    def no_input(*_: object) -> str:
        raise EOFError("a check cannot answer input()")

    builtins.input = no_input
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _limit_memory() -> None:
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:
        now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = now + EXTRA_MEMORY
    if hard == resource.RLIM_INFINITY or wanted < hard:
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))


# --- in this process --------------------------------------------------------------------------------------------------


def _in_this_process(function: Callable[..., Any], calls: Sequence[Call], seconds: float) -> list[Outcome]:
    before = torch.get_default_dtype(), torch.is_grad_enabled()
    alarm = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    try:
        return (_with_an_alarm if alarm else _in_a_thread)(function, calls, seconds)
    finally:
        torch.set_default_dtype(before[0])
        torch.set_grad_enabled(before[1])


def _with_an_alarm(function: Callable[..., Any], calls: Sequence[Call], seconds: float) -> list[Outcome]:
    outcomes: list[Outcome] = []
    quiet = io.StringIO()

    def ring(*_: object) -> None:
        raise _OutOfTime

    previous = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, 0.2)  # again and again: a bare `except` may swallow one
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            each(function, calls, outcomes.append)
    except _OutOfTime:
        outcomes.append(late(seconds))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    return outcomes


def _in_a_thread(function: Callable[..., Any], calls: Sequence[Call], seconds: float) -> list[Outcome]:
    """A thread cannot be ended from outside; after its time the check goes on without it."""
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=each, args=(function, calls, outcomes.append), daemon=True)
    thread.start()
    thread.join(seconds)
    return [*outcomes, late(seconds)] if thread.is_alive() else outcomes

"""Who is at a run: a file beside its folder says so, to every host that shares it.

Whoever takes a run creates NAME.held, which only one can (`O_EXCL`; on network file systems of NFS 3 and later too,
where `flock` alone is not enough), and writes into it host, process and, every few seconds from a thread of its own, a
heartbeat, which goes on however long a step takes. A holder on this machine is judged by its process: one that lives
keeps its run, stopped (SIGSTOP) or not; one that does not has lost it at once. Of a holder elsewhere only the heartbeat
tells, by its change as this process sees it, for no two hosts' clocks need agree: none for SILENT seconds, and the run
is taken over. One that was stopped there, and wakes, cannot be told from a dead one before; so it looks for its own
token before it writes checkpoint or record, and ends without writing where there is another's.

A holder's file is removed only by whoever could create one beside it that bears its token: so two who find the same
holder gone do not remove each other's file, and one who wakes does not remove its successor's. Who only reads waits for
nobody.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import psutil

from sswp_lib.config import InputError, RunError
from sswp_lib.runs.progress import Line

BEAT = 5.0  # seconds from one heartbeat to the next; ours
SILENT = 45.0  # seconds of watching without a heartbeat after which a holder elsewhere is taken for dead; ours
COUNTED = 15.0  # seconds of silence that count between two looks: who was stopped itself has not watched; ours
SOON, LATER = 0.05, 1.0  # seconds from one look to the next while a run is waited for, at first and in the end; ours
LOOK = 1.0  # seconds from one look at the own file to the next, between writes; ours
REUSED = 10.0  # seconds by which the start of another process of the same number differs at least; clocks are set
VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


class Lost(RunError):
    """Another process has taken the run over."""


class Busy(RuntimeError):
    """Another process is at this run; raised within `without_waiting` alone."""


_waits: ContextVar[bool] = ContextVar("waits", default=True)


@contextmanager
def without_waiting() -> Iterator[None]:
    """Within this, a run that another process is at is not waited for: Busy is raised, for who has other runs to do."""
    token = _waits.set(False)
    try:
        yield
    finally:
        _waits.reset(token)


@cache
def machine() -> str:
    """Return what tells where processes see each other: the host's name, its start and the namespace of its processes,
    for containers may share name and kernel.
    """
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{platform.node()}/{start}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return f"{platform.node()}/{uuid.getnode():x}"


@cache
def _born(pid: int) -> float:
    return psutil.Process(pid).create_time()


def lives(pid: int, born: float) -> bool:
    """Tell whether a process of this machine lives, stopped or not: that one, not another of the same number."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - born) < REUSED
        return same and process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.AccessDenied:
        return True
    except psutil.NoSuchProcess:
        return os.name == "posix" and _hidden(pid)


def _hidden(pid: int) -> bool:
    """Tell whether there is such a process of another user, in whose folder of /proc one may not look (hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        return False
    return False


@dataclass(frozen=True)
class Holder:
    """Who holds a run, as its file says; `token` is of one taking alone. `beat` counts heartbeats."""

    token: str
    host: str = "an unknown host"
    machine: str = ""
    pid: int = 0
    born: float = 0.0
    since: float = 0.0
    beat: str = ""

    def alive(self) -> bool | None:
        """Tell whether its process lives; None where it is of another machine."""
        return lives(self.pid, self.born) if self.machine == machine() else None

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else self.host


def holder(path: Path) -> Holder | None:
    """Return who holds what that file stands for; None where nobody does. Opened anew at each look, for that is when a
    network file system asks its server.
    """
    try:
        with open(path, "rb") as file:
            content, number = file.read(), os.fstat(file.fileno()).st_ino
    except OSError as error:
        if error.errno in VANISHED:
            return None
        raise
    try:
        return Holder(**json.loads(content))
    except (ValueError, TypeError):  # created, but not written yet; or by one who died between
        return Holder(f"unnamed{number}")


def file_of(folder: Path) -> Path:
    """Return the file that says who is at the run of that folder."""
    return folder.with_name(f"{folder.name}.held")


class Hold:
    """What this process holds until it lets go. `after` is the holder from whom it was taken over, if it was."""

    def __init__(self, path: Path, file: int, after: Holder | None = None):
        self.path, self.file, self.after = path, file, after
        self.looked, self.count = time.monotonic(), 0
        pid = os.getpid()
        self.holder = Holder(uuid.uuid4().hex, platform.node(), machine(), pid, _born(pid), time.time())
        self._say()

    def _say(self) -> None:
        """Write the file's content, as long as before: into it, not into what may stand at its name by now."""
        text = json.dumps(asdict(self.holder) | {"beat": f"{self.count:010d}"})
        os.lseek(self.file, 0, os.SEEK_SET)
        os.write(self.file, f"{text}\n".encode())

    def beat(self) -> None:
        """Give a sign of life."""
        self.count += 1
        with suppress(OSError):  # a server that is away is away for whoever watches, too
            self._say()
            os.fsync(self.file)

    def confirm(self, now: bool = True) -> None:
        """Raise Lost where another has taken over. Without `now`, only if some time has passed since the last look."""
        at = time.monotonic()
        if not now and at - self.looked < LOOK:
            return
        self.looked = at
        try:
            found = holder(self.path)
        except OSError:
            return  # whatever is written next says what is wrong
        if found is None or found.token != self.holder.token:
            raise Lost(
                f"{self.path.stem} is {f'held by {found}' if found else 'not held'} by now, for this process gave no "
                "sign of life for long; it writes nothing more. Ask again to be given the record when it is there"
            )

    def release(self) -> None:
        """Let go; where another is about to take over, or has, its file stays."""
        os.close(self.file)
        try:
            right = _create(_right(self.path, self.holder))
        except OSError:  # on a full disk, where one lets go all the same
            _unlink(self.path, self.holder)
            return
        if right is not None:
            _unlink(self.path, self.holder)
            right.drop()

    def drop(self) -> None:
        """Remove the file of a right, which nobody else does while this process lives."""
        with suppress(OSError):
            os.close(self.file)
        self.path.unlink(missing_ok=True)


def _right(path: Path, of: Holder) -> Path:
    """Return the file beside a holder's whose creator may remove that holder's, and nobody else."""
    return path.with_name(f"{path.name}.{of.token}")


def _unlink(path: Path, of: Holder) -> None:
    """Remove a holder's file, if it is still that one's."""
    found = holder(path)
    if found is not None and found.token == of.token:
        path.unlink(missing_ok=True)


def _create(path: Path, after: Holder | None = None) -> Hold | None:
    """Return the hold of a file that was not there; None where it is."""
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    except FileExistsError:
        return None
    try:
        return Hold(path, file, after)
    except OSError:
        os.close(file)
        path.unlink(missing_ok=True)
        raise


class _Heart:
    """One thread of this process, which beats for all that it holds."""

    def __init__(self):
        self.holds: set[Hold] = set()
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None

    @contextmanager
    def beating(self, hold: Hold) -> Iterator[None]:
        """Give signs of life meanwhile, and let go in the end."""
        with self.lock:
            self.holds.add(hold)
            if self.thread is None:
                self.thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
                self.thread.start()
        try:
            yield
        finally:
            with self.lock:  # its file is written by nobody from here on
                self.holds.discard(hold)
            hold.release()

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT)
            with self.lock:
                for hold in self.holds:
                    hold.beat()


_heart = _Heart()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_heart.__init__)  # which holds nothing, and has not that thread


@dataclass
class _Watch:
    """A holder as it was last seen, when that was, and for how long nothing had changed by then."""

    seen: Holder
    looked: float
    silence: float = 0.0


_watched: dict[Path, _Watch] = {}  # by this process


def gone(path: Path, found: Holder) -> bool:
    """Tell whether a holder, as just found, is dead: by its process on this machine, else by its heartbeat, of which
    this process must have looked some times.
    """
    alive = found.alive()
    if alive is not None:
        return not alive
    now, watch = time.monotonic(), _watched.get(path)
    if watch is None or watch.seen != found:
        _watched[path] = _Watch(found, now)
        return False
    watch.silence += min(now - watch.looked, COUNTED)
    watch.looked = now
    return watch.silence >= SILENT


def take(path: Path) -> Hold | Holder:
    """Take what nobody holds, or whose holder is gone; else return who holds it. Waits for nobody."""
    after = None
    while True:
        hold = _create(path, after)
        if hold is not None:
            _watched.pop(path, None)
            return hold
        found = holder(path)
        if found is None:
            continue
        if not gone(path, found) or not _removed(path, found):
            return found
        after = found


def _removed(path: Path, dead: Holder) -> bool:
    """Remove the file of a holder that is gone; False where another is about to."""
    right = take(_right(path, dead))
    if isinstance(right, Holder):
        return False
    try:
        _unlink(path, dead)
    finally:
        right.drop()
    return True


@contextmanager
def held(folder: Path, line: Line) -> Iterator[Hold]:
    """Hold a run; where another process does, wait for that one.

    Raises:
        Busy: another does, within `without_waiting`. InputError: the folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        hold = _waited(file_of(folder), line)
    except OSError as error:
        raise InputError(
            f"cannot keep runs in {str(folder.parent)!r}: {error.strerror}; set SSWP_RUNS to a folder that "
            "can be written"
        ) from None
    with _heart.beating(hold):
        with suppress(OSError):
            os.listdir(folder)  # for a network file system may remember that there was no record
        yield hold


@contextmanager
def claimed(path: Path) -> Iterator[Hold | Holder]:
    """Hold what a file stands for, if nobody else does; else yield who. Waits for nobody."""
    path.parent.mkdir(parents=True, exist_ok=True)
    claim = take(path)
    if isinstance(claim, Holder):
        yield claim
        return
    with _heart.beating(claim):
        yield claim


def _waited(path: Path, line: Line) -> Hold:
    found, pause = take(path), SOON
    if isinstance(found, Holder):
        if not _waits.get():
            raise Busy(path.stem)
        line.note(f"another process is at this run ({found}); waiting for it")
    while isinstance(found, Holder):
        line.beat("waiting for another process")
        time.sleep(pause)
        found, pause = take(path), min(1.5 * pause, LATER)
    return found

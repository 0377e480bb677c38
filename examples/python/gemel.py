"""What a Python program uses that runs under Gemel. Needs only the standard library.

    import gemel
    with gemel.Thread("worker") as beat:
        for job in jobs:
            beat.beat()
            work(job)

Everything is safe and does nothing when the program was not started by Gemel. The
layout of the page is described in docs/beat-page.md. Python has no compare-and-swap
on shared memory, so a lock on the page keeps the threads of this program, and its
children that use this module, apart while they claim a place.
"""

import fcntl
import mmap
import os
import socket
import struct
import threading

PAGE_VERSION, HEADER, SLOT, MAX_SLOTS = 1, 64, 64, 16384
PAGE = HEADER + MAX_SLOTS * SLOT
FREE, CLAIMING, LIVE, DONE = range(4)

_lock = threading.Lock()
_page = None
_file = None


def start():
    """The number of this start of the program; 0 if not run under Gemel."""
    try:
        return int(os.environ.get("GEMEL_START", "0"))
    except ValueError:
        return 0


def _map():
    global _page, _file
    path = os.environ.get("GEMEL_BEAT_PAGE")
    if _page is not None or not path:
        return _page
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        if os.fstat(fd).st_size < PAGE:
            os.close(fd)
            return None
        page = mmap.mmap(fd, PAGE)
    except OSError:
        return None
    magic, version, slot = struct.unpack_from("<8sII", page, 0)
    if magic != b"GEMELBP\0" or version != PAGE_VERSION or slot != SLOT:
        os.close(fd)
        return None
    _page, _file = page, fd
    return _page


class Thread:
    """The sign of life of one thread. Claim once for each thread."""

    def __init__(self, name=""):
        self._counter = None
        with _lock:
            page = _map()
            if page is None:
                return
            fcntl.lockf(_file, fcntl.LOCK_EX)
            try:
                self._claim(page, name)
            finally:
                fcntl.lockf(_file, fcntl.LOCK_UN)

    def _claim(self, page, name):
        mine = start() & 0xFFFFFFFF
        slots, used = struct.unpack_from("<II", page, 16)
        for i in range(min(slots, MAX_SLOTS)):
            at = HEADER + i * SLOT
            state, of = struct.unpack_from("<II", page, at + 8)
            if of == mine and state not in (FREE, DONE):
                continue
            raw = name.encode()[:32].decode(errors="ignore").encode()
            struct.pack_into("<II", page, at + 8, CLAIMING, mine)
            struct.pack_into("<I4x32s", page, at + 16, threading.get_native_id(), raw)
            self._state = memoryview(page)[at + 8 : at + 12].cast("I")
            # A native 8-byte view: the store of one element is one store.
            self._counter = memoryview(page)[at : at + 8].cast("Q")
            self.beat()
            self._state[0] = LIVE
            if used < i + 1:
                struct.pack_into("<I", page, 20, i + 1)
            return

    def beat(self):
        """Says that the thread is well: one store, no system call."""
        c = self._counter
        if c is not None:
            c[0] = (c[0] + 1) & 0xFFFFFFFFFFFFFFFF

    def done(self):
        """Gives the place back: a thread that ended on purpose is not missed."""
        if self._counter is not None:
            self._counter = None
            self._state[0] = DONE

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.done()


def notify(state):
    """Sends one notification by the protocol of sd_notify; False if nobody listens."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return False
    if path[0] == "@":
        path = "\0" + path[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.settimeout(2)
        s.sendto(f"{state}\nX_GEMEL_START={start()}".encode(), path)
    return True


def ready():
    """Says that the program can be used now."""
    return notify("READY=1")


def stopping():
    """Says that the program is about to end on purpose."""
    return notify("STOPPING=1")


def status(text):
    """Tells in one line what the program does."""
    return notify("STATUS=" + " ".join(text.split())[:500])

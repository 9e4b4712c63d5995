"""A disk that fails when told to, under the SQLite of this process.

Between SQLite and the operating system stands its VFS (https://sqlite.org/vfs.html). The
one made here is a copy of the default; the files it opens have their `xWrite`, `xSync`
and `xTruncate` go through `Disk.ask`, which counts them and says which one fails.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import sqlite3
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p

_KEPT = []
"""What C holds pointers to, as long as a connection may be open: for good."""

OK, IOERR_WRITE, IOERR_FSYNC, IOERR_TRUNCATE, FULL = 0, 778, 1034, 1546, 13


class IoMethods(Structure):
    _fields_ = [
        ("iVersion", c_int),
        *[(name, c_void_p) for name in ("xClose", "xRead", "xWrite", "xTruncate")],
        *[(name, c_void_p) for name in ("xSync", "xFileSize", "xLock", "xUnlock")],
        *[(f"x{k}", c_void_p) for k in range(10)],
    ]


class File(Structure):
    _fields_ = [("pMethods", POINTER(IoMethods))]


class Vfs(Structure):
    pass


OPEN = CFUNCTYPE(c_int, POINTER(Vfs), c_void_p, POINTER(File), c_int, c_void_p)
WRITE = CFUNCTYPE(c_int, POINTER(File), c_void_p, c_int, c_int64)
SYNC = CFUNCTYPE(c_int, POINTER(File), c_int)
TRUNCATE = CFUNCTYPE(c_int, POINTER(File), c_int64)

Vfs._fields_ = [
    ("iVersion", c_int),
    ("szOsFile", c_int),
    ("mxPathname", c_int),
    ("pNext", c_void_p),
    ("zName", c_char_p),
    ("pAppData", c_void_p),
    ("xOpen", OPEN),
    *[(f"x{k}", c_void_p) for k in range(16)],
]


def library():
    """Return the SQLite that Python's own module uses, or None where it is inside it."""
    import _sqlite3

    with contextlib.suppress(OSError, AttributeError):
        # What the module is linked against is found among what it has loaded.
        held = ctypes.CDLL(_sqlite3.__file__)
        held.sqlite3_libversion.restype = c_char_p
        if held.sqlite3_libversion().decode() == sqlite3.sqlite_version:
            return held
    return None


class Disk:
    """Counts writes, syncs and truncations; fails the `nth`, or all from there on."""

    def __init__(self):
        self.calls = 0
        self.failed = 0
        self.nth = None
        self.sticky = False
        self.code = None
        self.kinds = ("write", "sync", "truncate")

    def fail(
        self, nth, *, kinds=("write", "sync", "truncate"), code=None, sticky=False
    ):
        self.calls = self.failed = 0
        self.nth, self.kinds, self.code, self.sticky = nth, kinds, code, sticky

    def heal(self):
        self.nth = None

    def ask(self, kind, code):
        if kind not in self.kinds:
            return OK
        self.calls += 1
        if self.nth is None or self.calls < self.nth:
            return OK
        if self.calls > self.nth and not self.sticky:
            return OK
        self.failed += 1
        return self.code or code


@contextlib.contextmanager
def failing_disk():
    """Put the disk under every database that is opened from now on."""
    sqlite = library()
    if sqlite is None:
        raise RuntimeError(
            "this Python has its SQLite inside: no VFS can be put under it"
        )
    sqlite.sqlite3_vfs_find.restype = POINTER(Vfs)
    sqlite.sqlite3_vfs_find.argtypes = [c_char_p]
    sqlite.sqlite3_vfs_register.argtypes = [POINTER(Vfs), c_int]
    sqlite.sqlite3_vfs_unregister.argtypes = [POINTER(Vfs)]
    default = sqlite.sqlite3_vfs_find(None)
    disk = Disk()
    kept = _KEPT
    tables = {}

    def table_over(methods):
        """Copy a table of methods, with ours in three places; one for each original."""
        address = ctypes.addressof(methods.contents)
        if address not in tables:
            table = IoMethods.from_buffer_copy(methods.contents)
            write = WRITE(methods.contents.xWrite)
            sync = SYNC(methods.contents.xSync)
            truncate = TRUNCATE(methods.contents.xTruncate)
            ours = (
                WRITE(
                    lambda f, d, n, o: (
                        disk.ask("write", IOERR_WRITE) or write(f, d, n, o)
                    )
                ),
                SYNC(lambda f, flags: disk.ask("sync", IOERR_FSYNC) or sync(f, flags)),
                TRUNCATE(
                    lambda f, n: disk.ask("truncate", IOERR_TRUNCATE) or truncate(f, n)
                ),
            )
            table.xWrite, table.xSync, table.xTruncate = (
                ctypes.cast(one, c_void_p).value for one in ours
            )
            kept.extend((table, ours, write, sync, truncate))
            tables[address] = table
            kept.append(table)
        return ctypes.pointer(tables[address])

    really_open = default.contents.xOpen

    def open_(vfs, name, file, flags, out):
        code = really_open(vfs, name, file, flags, out)
        if code == OK and file.contents.pMethods:
            file.contents.pMethods = table_over(file.contents.pMethods)
        return code

    vfs = Vfs.from_buffer_copy(default.contents)
    vfs.pNext = None
    vfs.zName = b"failing"
    vfs.xOpen = OPEN(open_)
    kept.append(vfs)
    sqlite.sqlite3_vfs_register(ctypes.byref(vfs), 1)
    try:
        yield disk
    finally:
        sqlite.sqlite3_vfs_register(default, 1)
        sqlite.sqlite3_vfs_unregister(ctypes.byref(vfs))

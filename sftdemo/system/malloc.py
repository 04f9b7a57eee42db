"""The allocator: freed memory kept, the heap warmed, huge pages, oneDNN's primitive cache."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of malloc.h


MAPPED = 2**25  # bytes; larger blocks are mapped and given back alone
KEPT = 2**28  # bytes free at the heap's end that aren't given back


MOST_KEPT = 2**31 - 1  # in training; more glibc can't be told
BUILT = 256  # products that oneDNN keeps built; a training step of 8 rows asks for less than half of them


PIECE = 2**24  # bytes of the heap touched at once


def keep_freed_heap(kept: int = KEPT) -> None:
    """Let glibc keep what tensors free for the next ones: fetched anew from the system, each page costs a fault."""
    if mallopt := _libc("mallopt"):
        mallopt(M_MMAP_THRESHOLD, MAPPED)
        mallopt(M_TRIM_THRESHOLD, kept)


def limit_onednn_cache() -> None:
    """Let oneDNN's cache of primitives hold fewer bfloat16 products: it builds one for each length of a batch or row.

    The environment overrules it; without effect once anything was built.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(BUILT))


def warm_heap(size: int) -> Future[None] | None:
    """Let one heap serve all threads and keep what is freed, and fetch it in the background until `size` bytes are free.

    Pages that a virtual machine never touched are slow to come, and a training's first forward pass would wait for them.
    Until `give_back`, up to 2 GiB of what is freed stays with the process.
    """
    mallopt, malloc, release = map(_libc, ("mallopt", "malloc", "free"))
    if not mallopt:
        return None
    malloc.restype = ctypes.c_void_p
    mallopt(M_ARENA_MAX, 1)
    keep_freed_heap(MOST_KEPT)

    wait_until_warm()  # else an earlier part would be held beside this one
    # Taken by this thread, since another may be given another heap; freed memory goes back to the heap it is of.
    pieces = [malloc(ctypes.c_size_t(PIECE)) for _ in range(min(size, MOST_KEPT - PIECE) // PIECE)]

    def touch() -> None:
        for piece in filter(None, pieces):
            ask_for_huge_pages(piece, PIECE)
            ctypes.memset(piece, 0, PIECE)
        for piece in pieces:
            release(ctypes.c_void_p(piece))

    return _toucher().submit(touch)


def wait_until_warm() -> None:
    """Wait for `warm_heap`: while it goes on, what it holds stands beside what a pass takes."""
    _toucher().submit(int).result()


@cache
def _toucher() -> ThreadPoolExecutor:
    """One thread, so that what is asked for first is done first."""
    return ThreadPoolExecutor(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_toucher.cache_clear)  # a forked process has no threads


def give_back() -> None:
    """Return what the heap keeps to the system."""
    if trim := _libc("malloc_trim"):
        trim(ctypes.c_size_t(0))


def _libc(name: str) -> Any:
    """A function of Linux's C library, if it is there; musl has no mallopt."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


def ask_for_huge_pages(address: int, size: int) -> None:
    """Ask Linux to back memory that is written next with pages of 2 MiB: weights are read in order, and with small pages
    each 4 KiB of them costs a look into the page table."""
    if madvise := _libc("madvise"):
        first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
        if (whole := address + size - first) > 0:
            madvise(ctypes.c_void_p(first), ctypes.c_size_t(whole), mmap.MADV_HUGEPAGE)

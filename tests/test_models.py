"""Where models compute, and how many threads torch may start: what the processes' limits allow, in a container too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from sftdemo.system.compute import device, set_threads


@pytest.fixture(autouse=True)
def _threads(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    yield
    torch.set_num_threads(before)


def v1(folder: Path, quota: int) -> Path:
    (folder / "cpu").mkdir()
    (folder / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    return folder


def v2(folder: Path, text: str) -> Path:
    (folder / "cpu.max").write_text(f"{text}\n")
    return folder


@pytest.mark.parametrize(
    ("quota", "allowed"), [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("max 100000", 64)]
)
def test_a_quota_bounds_the_threads(tmp_path, quota, allowed, monkeypatch):
    """A 64-core host, seen from a container."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    torch.set_num_threads(64)
    assert set_threads(v2(tmp_path, quota)) == allowed


@pytest.mark.parametrize(("quota", "allowed"), [(300_000, 3), (-1, 64)])
def test_the_older_files_too(tmp_path, quota, allowed, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    torch.set_num_threads(64)
    assert set_threads(v1(tmp_path, quota)) == allowed


def test_cores_that_are_not_ours_are_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 4, 5})
    torch.set_num_threads(8)
    assert set_threads(tmp_path) == 3, "no cgroup at all"


def test_who_set_the_threads_is_obeyed(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    torch.set_num_threads(5)
    assert set_threads(v2(tmp_path, "100000 100000")) == 5


def test_a_torch_built_for_gpus_computes_on_the_cpu_where_there_is_none(monkeypatch):
    """pip's own build for Linux is one; on a machine without a GPU it still names CUDA as its accelerator."""
    named = torch.device("cuda")
    monkeypatch.setattr(
        torch.accelerator, "current_accelerator", lambda check_available=False: None if check_available else named
    )
    assert device() == torch.device("cpu")

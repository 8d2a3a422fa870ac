"""``teachkit doctor``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from teachkit import data
from teachkit.cli.base import app
from teachkit.cli.lessons import lessons, shipped
from teachkit.files import cache_directory

_LAB = "pip install 'teachkit[lab]'"
_DATA = "restore the folder data/ (git checkout data) or reinstall teachkit"


class Finding(NamedTuple):
    """One line of the report: ``state`` is "ok", "note" (something is missing that not everyone needs) or "problem"."""

    subject: str
    state: str
    text: str
    remedy: str = ""


def _found(subject: str, good: object, text: str, remedy: str, otherwise: str = "note") -> Finding:
    """What is good needs no remedy."""
    return Finding(subject, "ok", text) if good else Finding(subject, otherwise, text, remedy)


@app.command()
def doctor() -> None:
    """Check Python, torch, device, compiler, memory, data, Jupyter, browser; exit code 1 if something is broken."""
    problems = 0
    for check in CHECKS:
        try:
            findings = list(check())
        except Exception as error:  # whatever is broken here is what the report is for
            name = check.__name__.strip("_").replace("_", " ")
            findings = [Finding(name, "problem", f"{type(error).__name__}: {error}", "reinstall teachkit")]
        for found in findings:
            print(f"{found.state:<8}{found.subject:<12}{found.text}")
            if found.remedy:
                print(f"{'':<20}-> {found.remedy}")
            problems += found.state == "problem"
    print(f"{problems} problem{'' if problems == 1 else 's'}")
    if problems:
        raise SystemExit(1)


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield _found("Python", sys.version_info >= (3, 11), version, "install Python 3.11 or newer", "problem")


def _packages() -> Iterator[Finding]:
    for name in ("torch", "numpy", "safetensors", "torchvision", "matplotlib"):
        if name in ("torchvision", "matplotlib") and importlib.util.find_spec(name) is None:
            yield Finding(name, "note", "not installed: needed for pictures", "pip install 'teachkit[course]'")
            continue
        try:
            importlib.import_module(name)
            yield Finding(name, "ok", importlib.metadata.version(name))
        except Exception as error:
            reason = f"cannot be imported: {error}".splitlines()[0]
            yield Finding(name, "problem", reason, "pip install --force-reinstall teachkit")


def _device() -> Iterator[Finding]:
    for k in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(k)
        text = f"cuda:{k}, {torch.cuda.get_device_name(k)}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        works = float(torch.ones(2, device=f"cuda:{k}").sum()) == 2
        yield _found("device", works, text, "install the torch build that matches the GPU's driver", "problem")
    if not torch.cuda.device_count():
        unseen = shutil.which("nvidia-smi") is not None
        text = f"cpu, {torch.get_num_threads()} threads of torch, {os.cpu_count()} cores"
        remedy = "there seems to be an NVIDIA GPU: install a torch built for it, see https://pytorch.org"
        yield _found("device", not unseen, "cpu: torch sees no GPU" if unseen else text, remedy)


def _compiler() -> Iterator[Finding]:
    name = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")  # as torch does
    found = shutil.which(name)
    text = found or f"no C++ compiler called {name}: networks are trained uncompiled, which takes longer"
    yield _found("compiler", found, text, "install one (apt install g++), or set CXX")


def _memory() -> Iterator[Finding]:
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), free)
    except (OSError, ValueError, AttributeError):
        yield Finding("memory", "note", "cannot be read on this system")
    else:
        remedy = "close other programs; the lessons need about 2 GiB"
        yield _found("memory", free >= 2 * 2**30, f"{free / 2**30:.1f} GiB free", remedy)
    disk = shutil.disk_usage(Path.cwd()).free / 2**30
    yield _found("disk", disk >= 1, f"{disk:.1f} GiB free here", "make room: runs and downloads need about 1 GiB")


def _cache() -> Iterator[Finding]:
    folder = cache_directory()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        remedy = "set TEACHKIT_CACHE to a folder of your own: downloads and finished work are kept there"
        yield Finding("cache", "note", f"{there} cannot be written", remedy)
    else:
        passing = Path(tempfile.gettempdir()) in folder.parents
        remedy = "set TEACHKIT_CACHE (or HOME) to a folder that lasts, to keep downloads and finished work"
        yield _found("cache", not passing, f"{folder}{', among temporary files' if passing else ''}", remedy)


def _data() -> Iterator[Finding]:
    try:
        listed = json.loads((data.directory() / "checksums.json").read_text())
    except (ValueError, OSError) as error:
        yield Finding("data", "problem", f"the list of checksums cannot be read: {error}", _DATA)
        return
    good = len(listed)
    for name in listed:
        try:
            data.verify(name)
        except (ValueError, OSError) as error:
            good -= 1
            text, _, remedy = str(error).rpartition("; ")
            yield Finding("data", "problem", text or f"{name}: {error}", remedy if text else _DATA)
    if good:
        yield Finding("data", "ok", f"{good} of {len(listed)} files are what was shipped")


def _kernel() -> Iterator[Finding]:
    for name in ("jupyterlab", "ipywidgets", "ipykernel"):
        if importlib.util.find_spec(name) is None:
            yield Finding(name, "note", "not installed: needed for the lessons", _LAB)
            return
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    repair = f"{sys.executable} -m ipykernel install --sys-prefix"
    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        yield Finding("kernel", "problem", "Jupyter has no kernel called python3", repair)
        return
    ours = spec.argv[0] in ("python", "python3")  # Jupyter starts its own interpreter for these
    program = sys.executable if ours else shutil.which(spec.argv[0])
    works = f"JupyterLab {importlib.metadata.version('jupyterlab')}, kernel {program}"
    text = works if program else f"python3 starts {spec.argv[0]}, which does not exist"
    yield _found("kernel", program, text, repair, "problem")


def _lessons() -> Iterator[Finding]:
    folder = shipped()
    count = len(lessons(folder))
    yield _found("lessons", count, f"{count} in {folder}", "reinstall teachkit")


def _browser() -> Iterator[Finding]:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    remedy = "only for testing the lessons in a browser: install Chromium (apt install chromium)"
    yield _found("chromium", found, found or "not found", remedy)


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python, _packages, _device, _compiler, _memory, _cache, _data, _kernel, _lessons, _browser
)  # fmt: skip

"""``teachkit doctor`` and ``teachkit lab``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import typer

from teachkit.cli.base import app
from teachkit.files import cache_directory

_LAB = "pip install 'teachkit[lab]'"
_DATA = "restore the folder data/ (git checkout data) or reinstall teachkit"


class Finding(NamedTuple):
    """One line of the report: ``state`` is "ok", "note" (something is missing that not everyone needs) or "problem"."""

    subject: str
    state: str
    text: str
    remedy: str = ""


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


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(context: typer.Context) -> None:
    """Open the course in JupyterLab; options such as --no-browser or --port=8888 are passed to it."""
    folder = notebooks()
    if not folder.is_dir():
        raise FileNotFoundError(f"the lessons are not in {folder}; they come with a checkout of teachkit, not a wheel")
    if importlib.util.find_spec("jupyterlab") is None:
        raise RuntimeError(f"JupyterLab is not installed; {_LAB}")
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", f"--notebook-dir={folder}", *root, *context.args])


def notebooks() -> Path:
    """Where the lessons are in a checkout."""
    import teachkit

    return Path(teachkit.__file__).resolve().parents[1] / "notebooks"


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    old = sys.version_info < (3, 11)
    yield Finding("Python", "problem" if old else "ok", version, "install Python 3.11 or newer" if old else "")


def _packages() -> Iterator[Finding]:
    for name in ("torch", "numpy", "safetensors", "torchvision", "matplotlib"):
        if name in ("torchvision", "matplotlib") and importlib.util.find_spec(name) is None:
            yield Finding(name, "note", "not installed: needed for pictures", "pip install 'teachkit[course]'")
            continue
        try:
            importlib.import_module(name)
        except Exception as error:
            reason = f"cannot be imported: {error}".splitlines()[0]
            yield Finding(name, "problem", reason, "pip install --force-reinstall teachkit")
        else:
            yield Finding(name, "ok", importlib.metadata.version(name))


def _device() -> Iterator[Finding]:
    import torch

    for k in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(k)
        text = f"cuda:{k}, {torch.cuda.get_device_name(k)}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        works = float(torch.ones(2, device=f"cuda:{k}").sum()) == 2
        remedy = "" if works else "install the torch build that matches the GPU's driver"
        yield Finding("device", "ok" if works else "problem", text, remedy)
    if not torch.cuda.device_count():
        if shutil.which("nvidia-smi"):
            remedy = "there seems to be an NVIDIA GPU: install a torch built for it, see https://pytorch.org"
            yield Finding("device", "note", "cpu: torch sees no GPU", remedy)
        else:
            yield Finding("device", "ok", f"cpu, {torch.get_num_threads()} threads of torch, {os.cpu_count()} cores")


def _compiler() -> Iterator[Finding]:
    name = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")  # as torch does
    found = shutil.which(name)
    text = found or f"no C++ compiler called {name}: networks are trained uncompiled, which takes longer"
    remedy = "" if found else "install one (apt install g++), or set CXX"
    yield Finding("compiler", "ok" if found else "note", text, remedy)


def _memory() -> Iterator[Finding]:
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), free)
    except (OSError, ValueError, AttributeError):
        yield Finding("memory", "note", "cannot be read on this system")
    else:
        low = free < 2 * 2**30
        remedy = "close other programs; the lessons need about 2 GiB" if low else ""
        yield Finding("memory", "note" if low else "ok", f"{free / 2**30:.1f} GiB free", remedy)
    disk = shutil.disk_usage(Path.cwd()).free
    low = disk < 2**30
    remedy = "make room: runs and downloads need about 1 GiB" if low else ""
    yield Finding("disk", "note" if low else "ok", f"{disk / 2**30:.1f} GiB free here", remedy)


def _cache() -> Iterator[Finding]:
    folder = cache_directory()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        remedy = "set TEACHKIT_CACHE to a folder of your own: downloads and finished work are kept there"
        yield Finding("cache", "note", f"{there} cannot be written", remedy)
    elif Path(tempfile.gettempdir()) in folder.parents:
        remedy = "set TEACHKIT_CACHE (or HOME) to a folder that lasts, to keep downloads and finished work"
        yield Finding("cache", "note", f"{folder}, among temporary files", remedy)
    else:
        yield Finding("cache", "ok", str(folder))


def _data() -> Iterator[Finding]:
    import json

    from teachkit import data

    try:
        listed = json.loads((data.directory() / "checksums.json").read_text())
    except (ValueError, OSError) as error:
        yield Finding("data", "problem", f"the list of checksums cannot be read: {error}", _DATA)
        return
    good = 0
    for name in listed:
        try:
            data.verify(name)
            good += 1
        except (ValueError, OSError) as error:
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
    if program is None:
        yield Finding("kernel", "problem", f"python3 starts {spec.argv[0]}, which does not exist", repair)
        return
    yield Finding("kernel", "ok", f"JupyterLab {importlib.metadata.version('jupyterlab')}, kernel {program}")


def _lessons() -> Iterator[Finding]:
    count = len(list(notebooks().glob("[0-9][0-9]_*.ipynb")))
    remedy = "" if count else "get a checkout of teachkit: the lessons are not part of the wheel"
    yield Finding("lessons", "ok" if count else "note", f"{count} in {notebooks()}", remedy)


def _browser() -> Iterator[Finding]:
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    remedy = "" if found else "only for testing the lessons in a browser: install Chromium (apt install chromium)"
    yield Finding("chromium", "ok" if found else "note", found or "not found", remedy)


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python, _packages, _device, _compiler, _memory, _cache, _data, _kernel, _lessons, _browser
)  # fmt: skip

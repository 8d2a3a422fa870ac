"""A real JupyterLab on a free port and a headless Chromium that looks at it.

Nothing is downloaded: Playwright drives the system's chromium (on Debian: ``apt-get install chromium``); without one
these tests are skipped and say so. Screenshots are left in ``build/browser/``.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHOTS = ROOT / "build" / "browser"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
TOKEN = "for-these-tests-only"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = [item for item in items if Path(item.path).is_relative_to(Path(__file__).parent)]
    for item in here:
        item.add_marker(pytest.mark.slow)
        if CHROMIUM is None:
            item.add_marker(pytest.mark.skip(reason="no chromium here: apt-get install chromium"))


class Lab:
    """A JupyterLab server of its own: its settings, its kernels and its copies of the notebooks."""

    def __init__(self, folder: Path) -> None:
        self.root, self.log = folder / "root", folder / "lab.log"
        self.root.mkdir()
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{s.getsockname()[1]}"
        env = dict(os.environ, IPYTHONDIR=str(folder / "ipython"), OMP_NUM_THREADS="1", PYTHONHASHSEED="0")
        names = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR", "LAB_SETTINGS_DIR", "LAB_WORKSPACES_DIR")
        for name in names:
            key = f"JUPYTER{name}" if name.startswith("LAB") else f"JUPYTER_{name}"
            env[key] = str(folder / name.lower())
        settings = folder / "lab_settings_dir" / "@jupyterlab" / "apputils-extension"
        settings.mkdir(parents=True)
        quiet = {"fetchNews": "false", "checkForUpdates": False}
        (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
                    f"--port={self.url.rsplit(':', 1)[1]}", "--ServerApp.port_retries=0",
                    f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={self.root}",
                    "--LabApp.expose_app_in_browser=True",
                ], env=env, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def wait(self) -> None:
        for _ in range(120):
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            try:
                self.request("status")
                return
            except OSError:
                time.sleep(0.5)
        pytest.fail("JupyterLab did not start: " + self.log.read_text()[-2000:])

    def request(self, path: str, method: str = "GET") -> bytes:
        headers = {"Authorization": f"token {TOKEN}"}
        request = urllib.request.Request(f"{self.url}/api/{path}", headers=headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read()

    def wait_for_kernel(self, name: str) -> None:
        """Until the kernel of a notebook is idle and connected: before that, Run would ask which kernel to take."""
        for _ in range(240):
            for session in json.loads(self.request("sessions")):
                kernel = session["kernel"]
                if session["path"] == name and kernel["execution_state"] == "idle" and kernel["connections"]:
                    return
            time.sleep(0.25)
        pytest.fail(f"no kernel started for {name}")

    def stop_kernels(self) -> None:
        for session in json.loads(self.request("sessions")):
            self.request(f"sessions/{session['id']}", "DELETE")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    server = Lab(tmp_path_factory.mktemp("lab"))
    try:
        server.wait()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[test]'")
    SHOTS.mkdir(parents=True, exist_ok=True)
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("profile")), executable_path=CHROMIUM, headless=True, args=FLAGS,
            viewport={"width": 1280, "height": 1000}, reduced_motion="reduce",
        )  # fmt: skip
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def tab(context) -> Iterator:  # type: ignore[no-untyped-def]
    tab = context.new_page()
    yield tab
    tab.close()


@pytest.fixture
def page(lab: Lab, tab) -> Iterator:  # type: ignore[no-untyped-def]
    """The one tab in which JupyterLab is loaded; what a test opens in it is closed again."""
    yield tab
    tab.evaluate("() => Array.from(window.jupyterapp.shell.widgets('main')).forEach(widget => widget.dispose())")
    lab.stop_kernels()


OPEN = """async name => {
    await window.jupyterapp.restored;
    await window.jupyterapp.commands.execute("docmanager:open", {path: name});
}"""
START = """name => {
    const panel = window.jupyterapp.shell.currentWidget, run = window.finished = {done: false};
    if (!panel || !panel.context || panel.context.path !== name || !panel.content.model.cells.length) return false;
    window.jupyterapp.commands.execute("notebook:clear-all-cell-outputs")
        .then(() => window.jupyterapp.commands.execute("notebook:run-all-cells"))
        .finally(() => { run.done = true; });
    return true;
}"""
CELLS = """() => Array.from(window.jupyterapp.shell.currentWidget.content.model.cells)
    .filter(cell => cell.type === "code").map(cell => {
        const outputs = cell.outputs.toJSON(), failed = outputs.find(output => output.output_type === "error");
        const printed = outputs.filter(output => output.output_type === "stream").map(output => output.text).join("");
        return {count: cell.executionCount, error: failed ? failed.ename + ": " + failed.evalue : null, printed};
    })"""


def open_notebook(page, lab: Lab, name: str):  # type: ignore[no-untyped-def]
    """Open a notebook and wait for its kernel."""
    if not page.url.startswith(lab.url):
        page.goto(f"{lab.url}/lab?reset&token={TOKEN}")
        page.wait_for_function("() => window.jupyterapp", timeout=60_000)
    page.evaluate(OPEN, name)
    notebook = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
    notebook.locator(".jp-CodeCell").first.wait_for(state="attached", timeout=60_000)
    lab.wait_for_kernel(name)
    notebook.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for(timeout=60_000)
    return notebook


def open_and_run(page, lab: Lab, name: str, seconds: float):  # type: ignore[no-untyped-def]
    """Open a notebook, clear it, run all cells, wait for the end; every cell must have run and none may have failed.

    The commands of the Run menu are called, and the cells read from the notebook's model: what is drawn can lag
    behind, and a folded cell shows no number.
    """
    notebook = open_notebook(page, lab, name)
    begun = time.monotonic()
    while not page.evaluate(START, name):
        assert time.monotonic() - begun < 60, f"{name} did not open"
        page.wait_for_timeout(200)
    dialog = page.locator("dialog.jp-Dialog")
    while not page.evaluate("() => window.finished.done"):
        assert dialog.count() == 0, "JupyterLab asks: " + dialog.first.inner_text()
        assert time.monotonic() - begun < seconds, f"{name} did not finish in {seconds} s: {page.evaluate(CELLS)}"
        page.wait_for_timeout(200)
    cells = page.evaluate(CELLS)
    assert all(cell["error"] is None for cell in cells), next(c["error"] for c in cells if c["error"])
    assert [cell["count"] for cell in cells] == list(range(1, len(cells) + 1)), "not every cell has run"
    return notebook


def choose_theme(page, name: str) -> None:  # type: ignore[no-untyped-def]
    """Settings > Theme > ``name``."""
    page.get_by_role("menuitem", name="Settings", exact=True).click()
    page.locator(".lm-Menu-itemLabel").get_by_text("Theme", exact=True).hover()
    page.locator(".lm-Menu-itemLabel").get_by_text(name, exact=True).click()
    page.locator(f"body[data-jp-theme-name='{name}']").wait_for(state="attached", timeout=20_000)

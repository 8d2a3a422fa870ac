"""``teachkit lab``: lessons copied to a folder of the student's, where nothing that was changed is ever lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from typer.testing import CliRunner

from teachkit.cli import app, lessons

run = CliRunner().invoke


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "shipped"
    (folder / "assignments").mkdir(parents=True)
    (folder / "assignments" / "A1.ipynb").write_text("solutions")
    for name in ("00_start", "01_noise", "02_shift"):
        (folder / f"{name}.ipynb").write_text(f"{name}, first")
    return folder


@pytest.fixture
def mine(tmp_path, source):
    lessons.hand_out(source, tmp_path / "mine")
    return tmp_path / "mine"


def files(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.name != lessons.RECORD}


def test_the_lessons_are_copied_without_the_assignments(source, mine):
    assert files(mine) == {f"{name}.ipynb": f"{name}, first" for name in ("00_start", "01_noise", "02_shift")}


def test_answers_survive_an_upgrade(source, mine, monkeypatch):
    (mine / "01_noise.ipynb").write_text("my answers")
    (mine / "notes.txt").write_text("my notes")
    for name in ("00_start", "01_noise"):
        (source / f"{name}.ipynb").write_text(f"{name}, second")
    monkeypatch.setattr(lessons, "__version__", "2")
    for _ in range(2):  # nor does another call change anything
        said = lessons.hand_out(source, mine)
        assert "01_noise.ipynb is yours and stays" in said[0]
        assert files(mine) == {
            "00_start.ipynb": "00_start, second",
            "01_noise.ipynb": "my answers",
            "01_noise-2.ipynb": "01_noise, second",
            "02_shift.ipynb": "02_shift, first",
            "notes.txt": "my notes",
        }
    (mine / "01_noise-2.ipynb").write_text("new answers")
    (source / "01_noise.ipynb").write_text("01_noise, third")
    monkeypatch.setattr(lessons, "__version__", "3")
    lessons.hand_out(source, mine)
    kept = files(mine)
    assert (kept["01_noise.ipynb"], kept["01_noise-2.ipynb"]) == ("my answers", "new answers")
    assert kept["01_noise-3.ipynb"] == "01_noise, third"


def test_what_was_changed_but_is_not_new_is_left_in_peace(source, mine):
    (mine / "01_noise.ipynb").write_text("my answers")
    assert lessons.hand_out(source, mine) == [f"3 lessons in {mine}"]
    assert files(mine)["01_noise.ipynb"] == "my answers"
    assert len(files(mine)) == 3


def test_a_lesson_with_another_number_moves_unless_it_was_changed(source, mine):
    (mine / "02_shift.ipynb").write_text("my answers")
    for old, new in (("01_noise", "03_noise"), ("02_shift", "04_shift")):
        (source / f"{old}.ipynb").rename(source / f"{new}.ipynb")
    lessons.hand_out(source, mine)
    assert sorted(files(mine)) == ["00_start.ipynb", "02_shift.ipynb", "03_noise.ipynb", "04_shift.ipynb"]
    assert files(mine)["02_shift.ipynb"] == "my answers"


@pytest.mark.parametrize("record", [None, "{", "[]"], ids=["none", "half", "another"])
def test_without_its_record_every_file_is_the_students(source, mine, record):
    (mine / lessons.RECORD).unlink()
    if record is not None:
        (mine / lessons.RECORD).write_text(record)
    (mine / "01_noise.ipynb").write_text("my answers")
    lessons.hand_out(source, mine)
    assert files(mine)["01_noise.ipynb"] == "my answers"


def test_a_call_that_was_cut_off_can_be_repeated(source, mine, monkeypatch):
    for name in ("00_start", "01_noise"):
        (source / f"{name}.ipynb").write_text(f"{name}, second")
    write, calls = lessons._write, []

    def stopped(path, content):
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(lessons, "_write", stopped)
    with pytest.raises(KeyboardInterrupt):
        lessons.hand_out(source, mine)
    monkeypatch.setattr(lessons, "_write", write)
    lessons.hand_out(source, mine)
    assert sorted(files(mine).values()) == ["00_start, second", "01_noise, second", "02_shift, first"]


def test_what_a_first_call_wrote_before_it_was_cut_off_is_replaced_by_an_upgrade(source, mine):
    (mine / lessons.RECORD).unlink()
    (mine / "02_shift.ipynb").unlink()
    lessons.hand_out(source, mine)
    (source / "00_start.ipynb").write_text("00_start, second")
    assert lessons.hand_out(source, mine) == [f"3 lessons in {mine}"]
    assert files(mine)["00_start.ipynb"] == "00_start, second"


@pytest.mark.parametrize("arguments", [[], ["own folder"]])
def test_options_go_to_jupyterlab(source, tmp_path, monkeypatch, arguments):
    started = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lessons.os, "execv", lambda program, command: started.append(command))
    monkeypatch.setattr(lessons, "shipped", lambda: source)
    assert run(app, ["lab", *arguments, "--no-browser", "--port=8888"]).exit_code == 0
    folder = tmp_path / (arguments or [lessons.FOLDER])[0]
    assert started[0][1:4] == ["-m", "jupyterlab", f"--notebook-dir={folder}"]
    assert started[0][-2:] == ["--no-browser", "--port=8888"]
    assert len(files(folder)) == 3


def test_a_checkout_is_opened_where_it_lies(tmp_path, monkeypatch):
    started = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lessons.os, "execv", lambda program, command: started.append(command))
    assert run(app, ["lab"]).exit_code == 0
    assert started[0][3] == f"--notebook-dir={lessons.shipped()}"
    assert not list(tmp_path.iterdir())


def test_refusals_come_before_any_file(source, tmp_path, monkeypatch):
    monkeypatch.setattr(lessons, "shipped", lambda: source)
    (tmp_path / "file").write_text("mine")
    assert "must be a folder" in str(run(app, ["lab", str(tmp_path / "file")]).exception)
    monkeypatch.setattr(lessons, "shipped", lambda: tmp_path / "absent")
    assert isinstance(run(app, ["lab", str(tmp_path / "new")]).exception, FileNotFoundError)
    assert not (tmp_path / "new").exists()


def wait_until_quiet(log, seconds=3.0):
    size = -1
    while size != log.stat().st_size:
        size = log.stat().st_size
        time.sleep(seconds)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are those of Linux and macOS")
def test_ctrl_c_ends_jupyterlab_without_a_traceback(tmp_path):
    pytest.importorskip("jupyterlab", reason="needs the extra lab")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    settings = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    command = [
        sys.executable,
        "-m",
        "teachkit",
        "lab",
        "mine",
        "--no-browser",
        f"--port={port}",
        "--IdentityProvider.token=",
    ]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, **settings}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler), start_new_session=True,
        )  # fmt: skip
    try:
        begun = time.monotonic()
        while True:
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() - begun < 120
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/contents", timeout=10) as answer:
                    names = [each["name"] for each in json.load(answer)["content"]]
                break
            except OSError:
                time.sleep(0.5)
        assert sorted(names) == sorted(path.name for path in lessons.lessons(lessons.shipped()))
        wait_until_quiet(tmp_path / "log")  # its extensions still look for programs, and would die in the middle of it
        os.killpg(process.pid, signal.SIGINT)  # in a terminal JupyterLab first asks whether it is meant
        assert process.wait(30) in (0, 130, -signal.SIGINT)
    finally:
        process.kill()
    assert "Traceback" not in (tmp_path / "log").read_text()

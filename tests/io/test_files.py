"""Files that are complete or missing, wherever a path leads."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dqecir.io import files
from dqecir.io.files import dead_drafts, whole_folder, write_bytes, write_text


def test_a_link_stays_and_its_file_is_written(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    (tmp_path / "ahead").symlink_to("later")
    write_text(tmp_path / "ahead", "new")
    assert (tmp_path / "later").read_text() == "new"


def test_a_pipe_takes_the_data_and_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    taken = []
    reader = threading.Thread(target=lambda: taken.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_bytes(tmp_path / "pipe", b"data")
    reader.join()
    assert taken == [b"data"]
    assert (tmp_path / "pipe").is_fifo()


def test_a_device_takes_the_data_and_stays():
    write_bytes(files.Path(os.devnull), b"data")
    assert files.Path(os.devnull).is_char_device()


def test_a_full_disk_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    write_text(tmp_path / "a", "old")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "a", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="this system shows no open files")
def test_a_link_to_an_open_pipe_is_written_to():
    reading, writing = os.pipe()
    write_text(Path(f"/dev/fd/{writing}"), "new")
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        assert pipe.read() == "new"


def test_a_link_to_a_folder_stays(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with whole_folder(tmp_path / "link") as draft:
        (draft / "a").touch()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a").is_file()


HANGING = """
import sys, time
from pathlib import Path
from dqecir.io.files import whole_folder
with whole_folder(Path(sys.argv[1])) as draft:
    (draft / "half").touch()
    print("begun", flush=True)
    time.sleep(600)
"""


def test_the_draft_of_a_killed_process_goes_with_the_next_and_that_of_a_living_one_stays(tmp_path):
    target = tmp_path / "index"
    (tmp_path / ".index.pictures").mkdir()
    begun = [
        subprocess.Popen([sys.executable, "-c", HANGING, target], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        assert [process.stdout.readline() for process in begun] == ["begun\n"] * 2
        assert dead_drafts(target) == []
        begun[0].send_signal(signal.SIGKILL)
        begun[0].wait()
        [dead] = dead_drafts(target)
        assert (dead / "half").exists()
        with whole_folder(target) as draft:
            (draft / "whole").touch()
        assert not dead.exists()
        assert len(list(tmp_path.glob(".index.draft-*"))) == 1
    finally:
        for process in begun:
            process.kill()
            process.wait()
            process.stdout.close()
    # What looks like a draft by half of its name is a folder of somebody.
    assert (tmp_path / ".index.pictures").exists()
    assert [path.name for path in target.iterdir()] == ["whole"]

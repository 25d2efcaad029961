"""A disk that is full while a checkpoint is written costs that checkpoint, says so in one sentence, and no more."""

import subprocess

import pytest
from toys import fit_words, make_corpus

from trainer.__main__ import main
from trainer.checkpoint import load_checkpoint
from trainer.run import read_json


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a real file system of so many bytes, or makes the mounted one larger."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def resize(size, *how):
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"{','.join((*how, f'size={size}'))}", "tmpfs", disk])
        if mounted.returncode:
            pytest.skip("mounting needs root")
        return disk

    yield resize
    subprocess.run(["umount", disk])


def test_a_full_disk_keeps_the_checkpoint_before_and_the_run_goes_on_when_there_is_room(tmp_path, small_disk, capsys):
    corpus = make_corpus(tmp_path)
    assert main(fit_words(corpus, tmp_path / "ample", "optim.epochs=1")) == 0
    (checkpoint,) = (tmp_path / "ample" / "checkpoints").glob("*.pt")
    run = small_disk(round(2.5 * checkpoint.stat().st_size)) / "run"
    words = fit_words(corpus, run, "optim.epochs=4")
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert "what is complete is kept" in said
    assert read_json(run / "outcome.json")["outcome"] == "failed"
    assert load_checkpoint(run / "checkpoints")["step"] == 16
    small_disk("50m", "remount")
    assert main(words) == 0
    assert "going on after step 16" in (run / "log.txt").read_text()

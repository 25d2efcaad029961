"""A network judges prepared clips as it judges their videos. Run: pytest tests/test_agreement.py"""

from pathlib import Path

import films
import pytest
from rawclips import agreement

from manifests.clips import ClipStore, read_index
from manifests.prepare import prepare
from trainer.dataset import Clips

REAL = ("single_face.mp4", "r_single.mp4", "r_woman_a.mp4", "c_woman.flv")


def prepared(root: Path, files: list[Path], out: Path) -> Clips:
    """Clips of these videos, each a class of its own."""
    names = {f"own_{number}_{path.stem}": path.relative_to(root).as_posix() for number, path in enumerate(files)}
    prepare(films.write_small_manifest(out / "manifest.csv", names), root, out / "clips", workers=1)
    assert len(read_index(out / "clips")) == len(files)
    return Clips(ClipStore(out / "clips"), list(names), list(range(len(files))))


def test_a_trained_network_judges_drawn_films_alike(tmp_path: Path) -> None:
    skins = (films.SKIN, (150, 105, 80), (240, 205, 190))
    files = [
        films.write_film(tmp_path / "films" / f"{sway}.mp4", films.face_frames(40, sway, skin))
        for sway, skin in zip((4, 20, 36), skins, strict=True)
    ]
    clips = prepared(tmp_path / "films", files, tmp_path)
    found = agreement(clips, files, frames=8, size=48, views=3, steps=20)
    assert found.views == 9
    assert 0 < found.pixels < 2
    assert found.logits < 0.05
    assert found.probability < 0.05
    assert found.same == 1


@pytest.mark.skipif(not films.MEDIA.is_dir(), reason="the films of real faces are not here: set SLOWFAST_TEST_DATA")
def test_a_trained_network_judges_real_faces_alike(tmp_path: Path) -> None:
    files = [films.MEDIA / name for name in REAL]
    clips = prepared(films.MEDIA, files, tmp_path)
    found = agreement(clips, files, frames=8, size=48, views=3, steps=20)
    assert 0 < found.pixels < 2
    assert found.logits < 0.05
    assert found.probability < 0.05
    assert found.same == 1

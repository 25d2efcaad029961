"""The report: one page, from a run directory as the trainer writes it, opened in a real browser where there is one."""

import base64
import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pandas as pd
import pytest
from browser import Browser
from colours import BLINDNESS, contrast, lab, rgb, seen_by
from pages import OVERLAPPING, TOO_WIDE, violations, wait_for

from manifests.clipfile import PreparedClip, encode_frame, read_clip, write_clip
from manifests.clips import INDEX_COLUMNS, ClipStore, Rule, claim_folder, update_tables
from manifests.errors import UserError
from manifests.files import write_json
from manifests.table import as_table
from trainer.config import read_config
from trainer.evaluate import write_predictions
from trainer.figures import describe, gain_figures, robustness_figures, temperature_figures, view_figures
from trainer.hardest import (
    MOMENTS,
    SIDE,
    film_uri,
    hardest,
    light,
    map_at,
    moments_of,
    pictures,
    still_uri,
    told_classes,
)
from trainer.humans import human_figures
from trainer.judgement import DEEP
from trainer.metrics import calibration, summarize
from trainer.record import EVALUATION_FORMAT, Prediction, read_record
from trainer.report import training_seconds, write_report
from trainer.robustness import DISTURBANCES
from trainer.run import Interrupted, Run, read_json
from trainer.samples import UNDISTURBED, sample_pictures
from trainer.temperature import tempered

SIX = ("angry", "disgust", "fear", "happy", "neutral", "sad")
EIGHT = ("angry", "calm", "disgust", "fear", "happy", "neutral", "sad", "surprise")
SEED = 7
RACES = ("Caucasian", "African American", "Asian")
COUNTS = {"train": (672, 16), "val": (144, 4), "test": (288, 14)}
STYLE = (Path(__file__).parents[1] / "trainer" / "templates" / "report.css").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return judge(make_run(tmp_path_factory.mktemp("runs") / "judged"))


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return judge(make_run(tmp_path_factory.mktemp("runs") / "frame", arch="single_frame"), skill=1.1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, judged: Path) -> ClipStore:
    """Prepared clips of all the videos that the judged run's report shows, but the last."""
    shown = [prediction.clip_id for prediction in hardest(read_record(judged).predictions)]
    return make_store(tmp_path_factory.mktemp("clips"), shown[:-1])


def make_facts(labels: tuple[str, ...], arch: str = "slowfast", **manifest: Any) -> dict[str, Any]:
    config = read_config(Path("slowfast_face.yaml"), [f"model.arch={arch}", "optim.epochs=12"])
    people = {split: {"clips": clips, "actors": actors} for split, (clips, actors) in COUNTS.items()}
    return {
        "run_id": f"{arch}-demo",
        "command": "python -m trainer fit --config slowfast_face.yaml --manifest manifest.csv --clips clips/ --run x",
        "config": config.model_dump(mode="json"),
        "labels": list(labels),
        "manifest": {
            "path": "manifest.csv",
            "sha256": "5d" * 32,
            "leaky": False,
            "synthetic": False,
            "counts": people,
            **manifest,
        },
        "clips": {"size": 224, "margin": 0.3, "detector": "yunet-2023mar", "version": 1},
        "git_revision": "0f76d15c" * 5,
        "versions": {"python": "3.11.9", "torch": "2.14.1", "numpy": "2.4.0"},
        "hardware": {"device": "cpu", "cpu": "Some Processor (R) @ 2.20GHz", "cores": 2, "memory_gb": 8.3},
        "seed": SEED,
        "model": {"name": arch, "parameters": 33_646_022},
        "started": "2025-11-22T14:21:07+00:00",
    }


def make_run(path: Path, labels: tuple[str, ...] = SIX, epochs: int = 12, **facts: Any) -> Path:
    """A run directory written by the trainer's own code; interrupted if it is given fewer than its 12 epochs."""
    run = Run(path, make_facts(labels, **facts))
    rng = np.random.default_rng(SEED)
    try:
        with run:
            for step in range(10, epochs * 40 + 1, 10):
                log_step(run, step, rng)
            if epochs < 12:
                raise Interrupted(signal.SIGTERM)
    except Interrupted:
        pass
    return path


def log_step(run: Run, step: int, rng: np.random.Generator) -> None:
    epoch, progress = (step - 1) // 40, step / 480
    loss, speed = 1.8 * np.exp(-1.6 * progress) + rng.normal(0, 0.09), 40 + rng.normal(0, 2)
    run.report("training", force=True, epoch=epoch + 1, epochs=12, step=step, steps=480)
    run.record("step", epoch=epoch, step=step, loss=loss, lr=1e-3, clips_per_second=speed, data_wait=0.06)
    if step % 40 == 0:
        uar = 0.17 + 0.66 * (1 - np.exp(-2.6 * progress)) + rng.normal(0, 0.02)
        scores = {"loss": 1.8 - 1.35 * uar, "war": uar + 0.015, "uar": uar, "macro_f1": uar - 0.01}
        run.record("evaluation", split="val", epoch=epoch, step=step, **scores)


def judge(path: Path, labels: tuple[str, ...] = SIX, skill: float = 2.2) -> Path:
    """Add evaluation.json and predictions.csv, by the trainer's own code, to a run directory."""
    rng = np.random.default_rng(SEED + round(10 * skill))
    rows = make_rows(labels)
    truth = np.array([labels.index(label) for label in rows["emotion"]])
    logits = rng.normal(0, 1.2, (len(rows), len(labels)))
    logits[np.arange(len(rows)), truth] += skill + rng.normal(0, 0.8, 14)[rows["actor"].factorize()[0]]
    views = np.exp(logits[:, None] + rng.normal(0, 0.7, (len(rows), 6, len(labels))))
    per_view = views / views.sum(axis=-1, keepdims=True)
    probabilities = per_view.mean(axis=1)
    run = Run(path, read_json(path / "run.json"))
    actors = rows["actor"].to_numpy()
    clean = per_view[:, 2]
    # Each disturbance takes another share of the evidence away; the first takes none.
    harm = np.linspace(0, 1, len(DISTURBANCES))[:, None]
    disturbed = (1 - harm) * clean[:, None] + harm * rng.dirichlet(np.ones(len(labels)), (len(rows), len(harm)))
    half = rng.permutation(len(rows))[: len(rows) // 2]
    temperature = temperature_figures(probabilities[half], truth[half])
    write_json(
        path / "evaluation.json",
        {
            "format": EVALUATION_FORMAT,
            "split": "test",
            "views": {"clips": 3, "flip": True},
            "weights_sha256": "b7" * 32,
            "manifest_sha256": run.facts["manifest"]["sha256"],
            "labels": list(labels),
            "clips": len(rows),
            "actors": int(rows["actor"].nunique()),
            **describe(probabilities, truth, rows, labels, SEED),
            "temperature": {**temperature, "actors": 4},
            "calibration_after": calibration(tempered(probabilities, temperature["value"]), truth),
            "one_view": summarize(clean, truth),
            "per_view": view_figures(per_view, truth),
            "tta": gain_figures(
                clean, per_view, truth, actors, SEED, clips=3, flip=True, seconds_one=7.6, seconds_all=41.7
            ),
            "robustness": {**robustness_figures(clean, disturbed, truth, actors, SEED), "seconds": 91.2},
            "human": human_figures(rows, labels, synthetic=run.facts["manifest"]["synthetic"]),
            "seconds": 41.7,
            "clips_per_second": 41.4,
            "skipped": [{"clip_id": "crema_1076_MTI_SAD_XX", "reason": "no face in any of 3 frames"}],
            "twins": {
                "sources_sha256": "c4" * 32, "compared": 82, "agreement": 81 / 82, "largest_difference": 0.131,
                "disagreements": [{"clip_id": "ravdess_01-05-01-02-01-12", "label": "angry", "predicted": "angry",
                                   "twin_predicted": "disgust"}],
            },
        },
    )  # fmt: skip
    write_predictions(run, probabilities, truth, rows, labels)
    wrong = hardest(read_record(path).predictions)
    maps = np.zeros((MOMENTS, 7, 7), int)
    maps[:, 4:6, 2:5] = 100
    seconds = (1.2 * (np.arange(MOMENTS) + 1) / MOMENTS).round(3).tolist()
    watched = {
        p.clip_id: {"emotion": p.predicted, "seconds": seconds, "maps": maps.tolist(), "probabilities": swinging(p)}
        for p in wrong
    }
    write_json(path / "attention.json", {"weights_sha256": "b7" * 32, "clips": watched})
    return path


def swinging(prediction: Prediction) -> list[list[float]]:
    """Probabilities at each moment, from knowing nothing to what the prediction says."""
    shares = np.array(list(prediction.probabilities.values()))
    known = (np.arange(MOMENTS) + 1)[:, None] / MOMENTS
    return (known * shares + (1 - known) / len(shares)).round(4).tolist()


def make_rows(labels: tuple[str, ...]) -> pd.DataFrame:
    """The manifest's rows of 288 test videos of 14 actors in both corpora."""
    actors = [f"ravdess_{n:02d}" for n in (3, 4, 11, 12)] + [f"crema_{n}" for n in range(1042, 1052)]
    rows = []
    for number in range(288):
        actor = actors[number % 14]
        rows.append(
            {
                "clip_id": f"{actor}_take_{number:03d}",
                "dataset": actor.partition("_")[0],
                "actor": actor,
                "sex": ("female", "male")[number % 14 % 2],
                "age": None if actor.startswith("ravdess") else 21 + 5 * (number % 14),
                "race": "" if actor.startswith("ravdess") else RACES[number % 14 % 3],
                "intensity": ("normal", "strong", "low", "high", "unspecified")[number % 5],
                "emotion": labels[number // 14 % len(labels)],
            }
        )
    return as_table(pd.DataFrame(rows))


def make_store(root: Path, clip_ids: list[str], frames: int = 12, size: int = 160) -> ClipStore:
    """Prepared clips under these names, each a drawn face that begins to smile."""
    rule = Rule(size=size)
    claim_folder(root, rule)
    rows = []
    for clip_id in clip_ids:
        key = rule.key(clip_id)
        pictures = [encode_frame(draw_face(size, number / frames)) for number in range(frames)]
        write_clip(root, key, pictures, (np.arange(frames) / 10).tolist(), {"rule": {"size": size}})
        rows.append({**dict.fromkeys(INDEX_COLUMNS, ""), "clip_id": clip_id, "key": key})
    update_tables(root, rows, [])
    return ClipStore(root)


def draw_face(size: int, smile: float) -> np.ndarray:
    face, unit = np.full((size, size, 3), (120, 140, 150), np.uint8), size // 10
    cv2.ellipse(face, (5 * unit, 5 * unit), (3 * unit, 4 * unit), 0, 0, 360, (225, 180, 150), -1, cv2.LINE_AA)
    for x in (4, 6):
        cv2.circle(face, (x * unit, 4 * unit), unit // 3, (40, 40, 50), -1, cv2.LINE_AA)
    cv2.ellipse(face, (5 * unit, 6 * unit), (unit, int(unit * smile) + 1), 0, 0, 180, (150, 40, 50), 3, cv2.LINE_AA)
    return face


def page(run: Path, store: ClipStore | None = None, baseline: Path | None = None) -> str:
    return write_report(run, store, baseline).read_text(encoding="utf-8")


def plain(html: str) -> str:
    """The words of a page, without marks, breaks and the spaces that must not break."""
    joined = re.sub(r'<a class="word"[^>]*>(.*?)</a>', r"\1", html.replace("\u00a0", " "))
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", joined))


def test_the_page_opens_with_the_score_on_unseen_actors(judged: Path) -> None:
    overall = read_json(judged / "evaluation.json")["overall"]
    head = plain(re.search(r"<header.*?</header>", page(judged), re.S).group())  # type: ignore[union-attr]
    assert "Of 288 videos of 14 actors never seen in training" in head
    assert f"{100 * overall['war']:.1f} %" in head
    assert f"{100 * overall['uar']:.1f} %" in head
    assert f"{100 * overall['uar_interval'][0]:.1f} to {100 * overall['uar_interval'][1]:.1f} %" in head
    assert "Guessing gives 16.7 %" in head


def test_the_baseline_stands_beside_with_the_difference_and_its_interval(judged: Path, baseline: Path) -> None:
    ours, theirs = (read_json(path / "evaluation.json")["overall"]["uar"] for path in (judged, baseline))
    words = plain(page(judged, baseline=baseline))
    assert f"The baseline (single-frame ResNet-18) reaches {100 * theirs:.1f} % UAR" in words
    assert f"{100 * (ours - theirs):.1f} points better (95 % interval of the difference +" in words
    assert "The baseline sees one still picture of each video" in words


def test_a_baseline_of_another_manifest_gets_no_difference(judged: Path, tmp_path: Path) -> None:
    other = judge(make_run(tmp_path / "other", arch="single_frame", sha256="9e" * 32), skill=1.1)
    words = plain(page(judged, baseline=other))
    assert "judged on different manifests, so the scores cannot be compared" in words
    assert "this model is" not in words
    assert "one still picture" not in words


def test_a_baseline_without_evaluation_is_named_as_such(judged: Path, tmp_path: Path) -> None:
    words = plain(page(judged, baseline=make_run(tmp_path / "frame", arch="single_frame")))
    assert "The baseline (single-frame ResNet-18) has not been evaluated" in words


def test_the_page_is_one_file_that_asks_for_nothing(judged: Path, store: ClipStore, baseline: Path) -> None:
    html = page(judged, store, baseline)
    assert len(html.encode()) < 5_000_000
    assert re.findall(r"<script[^>]*>", html) == ["<script>"]
    assert set(re.findall(r'(?:src|href|poster)="([^"#][^:"]*:)', html)) == {"data:"}
    # The one address in it is the name of SVG's namespace, in the watermark's data URI.
    assert set(re.findall(r"https?://[^'\" )]+", html)) <= {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in html


def test_the_same_run_gives_the_same_bytes(judged: Path, store: ClipStore, baseline: Path) -> None:
    assert page(judged, store, baseline) == page(judged, store, baseline)


def test_drawn_faces_are_announced_and_people_are_not(tmp_path: Path, judged: Path) -> None:
    drawn = page(judge(make_run(tmp_path / "drawn", synthetic=True)))
    assert "Drawn faces, not people" in drawn
    assert "14 drawn actors" in plain(drawn)
    assert "Drawn faces" not in page(judged)


def test_a_leaky_split_marks_every_section(tmp_path: Path, judged: Path) -> None:
    html = page(judge(make_run(tmp_path / "leaky", leaky=True)))
    assert "do not quote these scores" in html
    assert "never seen in training" not in html
    sections = re.findall(r"<section.*?</section>", html, re.S)
    assert len(sections) == 14
    assert all('<span class="tag">leaky split</span>' in section for section in sections)
    assert "leaky split</span>" not in page(judged)


def test_a_run_that_was_interrupted_and_never_judged_still_has_a_page(tmp_path: Path) -> None:
    words = plain(page(make_run(tmp_path / "run", epochs=3)))
    assert "This run has not been judged on its test actors yet." in words
    assert "The run was interrupted after 3 of 12 epochs: stopped by SIGTERM." in words
    assert "What it confuses" not in words


def test_a_run_that_logged_nothing_still_has_a_page(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", make_facts(SIX))
    words = plain(page(tmp_path))
    assert "The run has not begun." in words
    assert "No step of training has been logged." in words


def test_a_run_without_predictions_says_that_it_cannot_show_videos(judged: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(judged, tmp_path / "run"))
    (run / "predictions.csv").unlink()
    assert "There is no predictions.csv in the run directory" in page(run)


def test_a_directory_that_is_no_run_is_refused_with_the_next_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no run directory \(no run\.json\); train first: python -m trainer fit"):
        write_report(tmp_path, None)


def test_a_loss_that_became_nan_breaks_the_curve_and_not_the_page(judged: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(judged, tmp_path / "run"))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines[20]["loss"] = float("nan")
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    html = page(run)
    drawn = re.search(r'<path class="line-a" d="([^"]+)"', html)
    assert drawn is not None
    assert "nan" not in "".join(re.findall(r' d="([^"]+)"', html))
    assert html.count('class="line-a" d=') == page(judged).count('class="line-a" d=') + 1


def test_every_cell_of_the_confusion_matrix_is_printed_as_it_was_counted(judged: Path) -> None:
    table = re.search(r'<table class="matrix">.*?</table>', page(judged), re.S).group()  # type: ignore[union-attr]
    counts = [int(count) for count in re.findall(r"<td[^>]*>([\d,]+)<small>", table)]
    assert np.array_equal(np.reshape(counts, (6, 6)), read_json(judged / "evaluation.json")["confusion"])
    framed = [" right" in cell for cell in re.findall(r"<td[^>]*>", table)]
    assert np.array_equal(np.reshape(framed, (6, 6)), np.eye(6, dtype=bool))


def test_every_actor_is_named_the_hardest_first(judged: Path) -> None:
    actors = read_json(judged / "evaluation.json")["groups"]["actor"]
    section = re.search(r'<section id="people".*?</section>', page(judged), re.S).group()  # type: ignore[union-attr]
    named = re.findall(r'<th scope="row">((?:crema|ravdess)_\d+)</th>', section)
    assert named == [a["name"] for a in sorted(actors, key=lambda a: (a["war"], a["name"]))]
    assert f"Hardest to read is {named[0]}" in plain(section)


def test_videos_that_could_not_be_used_are_named_with_their_reason(judged: Path) -> None:
    words = plain(page(judged))
    assert "1 video could not be used" in words
    assert "crema_1076_MTI_SAD_XX no face in any of 3 frames" in words


def test_names_from_outside_cannot_write_markup(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    facts = read_json(run / "run.json")
    write_json(run / "run.json", {**facts, "command": "fit --run '<script>alert(1)</script>'"})
    assert "<script>alert" not in page(run)


def test_the_hardest_videos_are_the_misread_ones_of_which_the_model_was_most_sure() -> None:
    def prediction(name: str, predicted: str, confidence: float) -> Prediction:
        return Prediction(name, "a", "sad", predicted, confidence, {"sad": 1 - confidence, predicted: confidence})

    made = [prediction("c", "happy", 0.7), prediction("b", "happy", 0.9), prediction("d", "sad", 0.99)]
    made.append(prediction("a", "happy", 0.7))
    assert [p.clip_id for p in hardest(made)] == ["b", "a", "c"]
    assert [p.clip_id for p in hardest(made, most=1)] == ["b"]


def test_a_card_tells_the_three_likeliest_emotions_and_always_the_played_one() -> None:
    shares = {"angry": 0.4, "fear": 0.3, "happy": 0.2, "neutral": 0.06, "sad": 0.04}
    told = told_classes(Prediction("clip", "a", "sad", "angry", 0.4, shares))
    assert [label for label, _ in told] == ["angry", "fear", "happy", "sad"]


def decoded(uri: str, folder: Path) -> list[np.ndarray]:
    kind, data = uri.split(",", 1)
    assert kind == "data:video/mp4;base64"
    (folder / "film.mp4").write_bytes(base64.b64decode(data))
    with av.open(str(folder / "film.mp4")) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_hard_videos_are_films_inside_the_page(judged: Path, store: ClipStore, tmp_path: Path) -> None:
    html = page(judged, store)
    films = re.findall(r'<video [^>]*poster="data:image/jpeg;base64,[^"]+" src="([^"]+)" aria-label="([^"]+)"', html)
    assert len(films) == 11
    shown = hardest(read_record(judged).predictions)
    for (uri, name), one in zip(films, shown[:-1], strict=True):
        assert name == f"{one.clip_id}, {one.label} read as {one.predicted}"
        frames = decoded(uri, tmp_path)
        assert len(frames) == 12
        assert frames[0].shape == (SIDE, 2 * SIDE, 3)
    assert plain(html).count("no prepared clip at hand") == 1


def test_each_hard_video_tells_its_answer_over_time(judged: Path, store: ClipStore) -> None:
    told = [json.loads(each) for each in re.findall(r"data-told='([^']+)'", page(judged, store))]
    watched = read_json(judged / "attention.json")["clips"]
    for one, data in zip(hardest(read_record(judged).predictions), told, strict=True):
        assert data["labels"] == list(SIX)
        assert data["shares"][:-1] == watched[one.clip_id]["probabilities"][:-1]
        assert data["shares"][-1] == list(one.probabilities.values()), "it ends in the answer that counts"
        assert data["seconds"] == watched[one.clip_id]["seconds"]


def make_video(folder: Path, shades: list[int], times: list[float], noise: int = 0) -> PreparedClip:
    rng = np.random.default_rng(SEED)
    frames = [np.clip(rng.integers(-noise, noise + 1, (64, 64, 3)) + shade, 0, 255) for shade in shades]
    pictures = [encode_frame(frame.astype(np.uint8)) for frame in frames]
    return read_clip(write_clip(folder, "k" * 64, pictures, times, {"rule": {"size": 64}}))


def test_a_film_keeps_the_pace_of_the_video_at_half_its_frames(tmp_path: Path) -> None:
    video = make_video(tmp_path, [4 * number for number in range(60)], [number / 30 for number in range(60)])
    frames = decoded(film_uri(video, None), tmp_path)
    assert [frame.mean() / 4 for frame in frames] == pytest.approx(list(range(0, 60, 2)), abs=1)
    with av.open(str(tmp_path / "film.mp4")) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx(np.arange(30) / 15, abs=0.001)


def test_twelve_films_of_the_worst_kind_fit_into_the_page(tmp_path: Path) -> None:
    video = make_video(tmp_path, [128] * 150, [number / 30 for number in range(150)], noise=127)
    seen = {"seconds": [5.0], "maps": np.full((1, 7, 7), 100).tolist()}
    assert 12 * len(film_uri(video, seen)) < 4_500_000


def test_the_same_video_gives_the_same_film(tmp_path: Path) -> None:
    video = make_video(tmp_path, [10 * number for number in range(20)], [number / 10 for number in range(20)], noise=20)
    assert film_uri(video, None) == film_uri(video, None)


def test_a_face_is_lit_where_the_map_is_and_dark_elsewhere() -> None:
    heat = np.zeros((4, 4))
    heat[2:, :2] = 1  # below on the left
    lit = light(np.full((SIDE, SIDE, 3), 120, np.uint8), heat).astype(float).mean(axis=2)
    place = lit[3 * SIDE // 4, SIDE // 4]
    assert place >= 120
    assert lit[SIDE // 4, 3 * SIDE // 4] < 0.4 * place


def test_between_two_moments_the_light_moves_from_one_map_to_the_next() -> None:
    seen = {"seconds": [1.0, 2.0], "maps": [[[0]], [[100]]]}
    assert [map_at(second, seen).item() for second in (0.2, 1.0, 1.25, 2.0, 2.7)] == pytest.approx([0, 0, 0.25, 1, 1])


def test_the_lit_face_stands_at_the_right_of_the_plain_one(tmp_path: Path) -> None:
    video = make_video(tmp_path, [120, 120], [0.0, 0.1])
    second, shown = next(pictures(video, {"seconds": [0.2], "maps": [[[0]]]}, [1]))
    assert second == pytest.approx(0.1)
    assert shown[:, :SIDE].mean() == pytest.approx(120, abs=2)
    assert shown[:, SIDE:].mean() == pytest.approx(0.28 * 120, abs=2)


def test_the_still_of_a_film_is_its_brightest_moment(tmp_path: Path) -> None:
    video = make_video(tmp_path, [60, 120, 180, 240], [0.0, 1.0, 2.0, 3.0])
    maps = [[[0]], [[100]], [[30]]]
    data = base64.b64decode(still_uri(video, {"seconds": [1.0, 2.0, 3.0], "maps": maps}).split(",")[1])
    still = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert still is not None
    assert still[:, :SIDE].mean() == pytest.approx(180, abs=3)


def test_moments_are_spread_over_time_and_end_with_the_video() -> None:
    # The second half of the frames comes in a tenth of the time: what counts is seconds.
    moments = moments_of(np.array([1.0, 2.0, 2.8, 2.9, 3.0]))
    assert np.diff(moments) == pytest.approx(2.5 / MOMENTS)
    assert moments[-1] == pytest.approx(3.5)


def test_a_run_that_was_never_watched_shows_its_hardest_videos_without_light(
    judged: Path, store: ClipStore, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(judged, tmp_path / "run"))
    (run / "attention.json").unlink()
    html = page(run, store)
    assert html.count("<video") == 11
    assert html.count(f'width="{SIDE}" height="{SIDE}"') == 11
    assert "Grad-CAM" not in html
    assert "data-told=" not in html


def test_an_evaluation_of_another_version_is_refused_with_the_next_command(judged: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(judged, tmp_path / "run"))
    write_json(run / "evaluation.json", {**read_json(run / "evaluation.json"), "format": 1})
    with pytest.raises(UserError, match="made by another version; make it anew: python -m trainer evaluate"):
        write_report(run, None)


def section(html: str, name: str) -> str:
    return plain(re.search(f'<section id="{name}".*?</section>', html, re.S).group())  # type: ignore[union-attr]


def test_people_s_scores_stand_beside_the_model_s_and_name_their_source(judged: Path) -> None:
    html = page(judged)
    head = plain(re.search(r"<header.*?</header>", html, re.S).group())  # type: ignore[union-attr]
    assert "People's WAR, one answer CREMA-D, face only 58.2 %" in head.replace("&#39;", "'")
    crema = read_json(judged / "evaluation.json")["groups"]["dataset"][0]
    assert f"The model is right in {100 * crema['war']:.1f} % (WAR)" in section(html, "corpora")
    assert "Cao et al. 2014" in section(html, "corpora")


def test_drawn_faces_are_not_compared_with_people(tmp_path: Path) -> None:
    html = page(judge(make_run(tmp_path / "drawn", synthetic=True)))
    assert "WAR, one answer" not in html
    assert "without the sound" not in html


def test_groups_come_with_their_intervals_and_the_largest_gap(judged: Path) -> None:
    evaluation = read_json(judged / "evaluation.json")
    words = section(page(judged), "people")
    for name in ("sex", "age", "race", "intensity"):
        for row in evaluation["groups"][name]:
            low, high = row["war_interval"]
            assert (
                f"{row['name']} {row['clips']} {row['actors']} {100 * row['war']:.1f} {100 * low:.0f}–{100 * high:.0f}"
                in words
            )
    gap = evaluation["gaps"]["sex"]
    assert f"{gap['better'].capitalize()} is read {100 * gap['gap']:.1f} points better than {gap['worse']}" in words


def test_a_kind_of_group_that_nobody_knows_is_left_out_and_said_so(judged: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(judged, tmp_path / "run"))
    evaluation = read_json(run / "evaluation.json")
    evaluation["groups"]["race"] = [{**evaluation["groups"]["race"][0], "name": "unknown"}]
    write_json(run / "evaluation.json", evaluation)
    words = section(page(run), "people")
    assert "as the corpus names it" not in words
    assert "The manifest does not know the actors' race." in words.replace("&#39;", "'")


def test_confidence_is_shown_before_and_after_the_temperature(judged: Path) -> None:
    evaluation = read_json(judged / "evaluation.json")
    html = page(judged)
    words = section(html, "confidence")
    before, after = (100 * evaluation[key]["ece"] for key in ("calibration", "calibration_after"))
    assert f"ECE % how far confidence is from the share right {before:.1f} {after:.1f}" in words
    assert f"After temperature {evaluation['temperature']['value']:.2f}" in words
    assert html.count("how sure it says it is, %") == 2


def test_every_way_to_look_is_told_with_its_gain_and_time(judged: Path) -> None:
    ways = read_json(judged / "evaluation.json")["tta"]
    words = section(page(judged), "gain")
    assert f"1 moment 1 {100 * ways[0]['uar']:.1f} 26 ms" in words
    assert f"3 moments, each mirrored too 6 {100 * ways[2]['uar']:.1f} +{100 * ways[2]['gain']:.1f}" in words
    assert "the 1,728 views of all videos score" in words
    assert "Extra passes measured one view, 18 disturbances" in words


def test_every_disturbance_is_told_with_what_is_left(judged: Path) -> None:
    figures = read_json(judged / "evaluation.json")["robustness"]
    words = section(page(judged), "robustness")
    for variant in figures["variants"]:
        assert f"{variant['severity']} {100 * variant['uar']:.1f}" in words
    worst = max(figures["variants"], key=lambda v: v["lost"])
    assert f"Costliest is {worst['name']}" in words
    assert f"undisturbed, {100 * figures['clean']['uar']:.1f} %" in words


def test_the_disturbances_that_a_frame_can_show_are_shown(judged: Path, store: ClipStore, tmp_path: Path) -> None:
    first = read_record(judged).predictions[0].clip_id
    shown = sample_pictures(make_store(tmp_path, [first]), first, 96)
    names = {sample["name"] for sample in shown}
    assert shown[0]["name"] == UNDISTURBED
    assert names - {UNDISTURBED} == {d.name for d in DISTURBANCES} - {"frames lost", "lower frame rate"}
    assert len({sample["picture"] for sample in shown}) == len(shown)
    html = page(judged, ClipStore(tmp_path))
    assert html.count('width="96" height="96"') == len(shown)
    assert "How it looks" not in page(judged)


def test_what_was_not_measured_has_no_section(judged: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(judged, tmp_path / "run"))
    evaluation = read_json(run / "evaluation.json")
    del evaluation["twins"]
    write_json(run / "evaluation.json", {**evaluation, "robustness": None})
    html = page(run)
    assert 'id="robustness"' not in html
    assert 'id="twins"' not in html
    assert "disturbances" not in html


def test_takes_whose_files_disagree_are_named(judged: Path) -> None:
    words = section(page(judged), "twins")
    assert "81 of 82 takes get the same answer" in words
    assert "ravdess_01-05-01-02-01-12 angry angry disgust" in words


def test_without_prepared_clips_the_page_says_why_there_are_no_pictures(judged: Path) -> None:
    html = page(judged)
    assert "<img" not in html
    assert "<video" not in html
    assert "Films are left out, because no prepared clips were given." in plain(html)


def test_time_is_told_for_each_part_of_the_work_and_money_where_a_machine_was_rented(
    judged: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(judged, tmp_path / "run"))
    told = section(page(run), "cost")
    assert "Judging 41.7 s, 41.4 views/s" in told
    assert "Judging disturbed pictures 1 min 31 s" in told
    assert "Money no rented machine is known of" in told
    rented = {"type": "g6.xlarge", "market": "spot", "zone": "us-east-1b", "dollars": 1.238, "price_per_hour": 0.4117}
    write_json(run / "machine.json", rented)
    assert "Money $1.24: g6.xlarge, spot, us-east-1b, at $0.412 an hour" in section(page(run), "cost")


def test_training_time_counts_steps_and_no_pauses() -> None:
    # 10 steps of 16 clips at 40 clips/s take 4 s, the next 10 at 20 clips/s take 8 s, whatever the clock said between.
    lines = [{"step": 10, "clips_per_second": 40.0}, {"step": 20, "clips_per_second": 20.0}]
    assert training_seconds(lines, clips_per_step=16) == pytest.approx(12.0)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_the_confusion_matrix_is_legible_at_every_shade(theme: str) -> None:
    colours = theme_colours(theme)
    page_colour, heat = rgb(colours["page"]), np.array(colours["heat"].split(), float)
    for share in np.linspace(0, 1, 101):
        shade = share * float(colours["heat-strength"])
        ink = rgb(colours["heat-ink-deep" if share > DEEP else "heat-ink"])
        assert contrast(page_colour * (1 - shade) + heat * shade, ink) >= 4.5, share


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("kind", BLINDNESS)
def test_the_two_series_differ_for_every_kind_of_colour_vision(kind: str, theme: str) -> None:
    colours = theme_colours(theme)
    first, second = (seen_by(rgb(colours[name]), kind) for name in ("a", "b"))
    # 2.3 is just noticeable; series are drawn as thin lines far apart, so far more is asked.
    assert np.linalg.norm(lab(first) - lab(second)) > 40
    for name in ("a", "b", "muted"):
        assert contrast(rgb(colours[name]), rgb(colours["surface"])) >= 3, name


def theme_colours(theme: str) -> dict[str, str]:
    blocks = [dict(re.findall(r"--([\w-]+): ([^;]+);", b)) for b in re.findall(r":root {(.*?)}", STYLE, re.S)]
    return {**blocks[0], **blocks[("light", "dark", "print").index(theme)]}


@pytest.fixture(scope="module")
def widest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fullest page there is: eight emotions, drawn, leaky, with a baseline and pictures."""
    folder = tmp_path_factory.mktemp("widest")
    run = judge(make_run(folder / "run", EIGHT, leaky=True, synthetic=True), EIGHT)
    frame = judge(make_run(folder / "frame", EIGHT, arch="single_frame"), EIGHT, skill=1.1)
    shown = [prediction.clip_id for prediction in hardest(read_record(run).predictions)]
    return write_report(run, make_store(folder / "clips", shown), frame)


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_in_a_browser_nothing_sticks_out_is_fetched_or_complained_of(
    browser: Browser, widest: Path, width: int
) -> None:
    browser.open(widest, width)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(TOO_WIDE) == []
    assert browser.evaluate(OVERLAPPING) == []
    assert browser.requests() == [widest.resolve().as_uri()]
    assert browser.complaints() == []
    assert browser.evaluate("[...document.images].every(i => [96, 224].includes(i.naturalWidth))")
    browser.screenshot(widest.with_name(f"report_{width}.png"))  # to look at where this fails


def test_in_a_browser_the_page_follows_the_reader_s_theme(browser: Browser, widest: Path) -> None:
    seen = {}
    for dark in (False, True):
        browser.open(widest, 1600, dark=dark)
        colour = browser.evaluate("getComputedStyle(document.querySelector('svg .line-a')).stroke")
        seen[dark] = (browser.evaluate("getComputedStyle(document.body).backgroundColor"), colour)
    assert seen[False] == ("rgb(247, 246, 243)", "rgb(11, 98, 168)")
    assert seen[True] == ("rgb(18, 21, 24)", "rgb(109, 181, 245)")


def test_in_a_browser_every_entry_of_the_list_of_sections_leads_somewhere(browser: Browser, widest: Path) -> None:
    browser.open(widest, 1600)
    lost = "[...document.querySelectorAll('nav a')].filter(a => !document.querySelector(a.hash)).map(a => a.hash)"
    assert browser.evaluate("document.querySelectorAll('nav a').length") == 15
    assert browser.evaluate(lost) == []


def test_the_search_for_texts_over_each_other_finds_one(browser: Browser, widest: Path) -> None:
    browser.open(widest, 1200)
    browser.evaluate("document.querySelector('#curves p').style.marginTop = '-2.2rem'")
    assert [clash for clash in browser.evaluate(OVERLAPPING) if "How training went" in clash]


@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_no_fault(browser: Browser, widest: Path, dark: bool) -> None:
    browser.open(widest, 1200, dark=dark)
    browser.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert violations(browser) == []


def test_a_hard_video_plays_and_its_cursor_goes_along(browser: Browser, widest: Path) -> None:
    browser.open(widest, 1200)
    card = "document.querySelector('.hard .card')"
    wait_for(browser, f"{card}.querySelector('video').readyState >= 2")
    assert browser.evaluate("[...document.querySelectorAll('.hard video')].every(v => v.paused && !v.controls)")
    before = browser.evaluate(f"{card}.querySelector('output').innerText").replace("\u00a0", " ")
    assert before.startswith("0.0 s: ")
    browser.evaluate(f"{card}.querySelector('button').click()")
    wait_for(browser, f"{card}.querySelector('video').ended")
    at = float(browser.evaluate(f"{card}.querySelector('.player').style.getPropertyValue('--at')"))
    assert at == pytest.approx(1, abs=0.1)
    # At its end the answer is the one that the page is about.
    read = browser.evaluate(f"{card}.querySelector('h3').innerText").split(" read as ")[1]
    assert f": {read} " in browser.evaluate(f"{card}.querySelector('output').innerText").replace("\u00a0", " ")
    assert browser.evaluate("[...document.querySelectorAll('.hard video')].filter(v => !v.paused).length") == 0


def test_the_page_prints_every_number_and_no_control(browser: Browser, widest: Path) -> None:
    browser.open(widest, 1200)
    browser.call("Emulation.setEmulatedMedia", media="print")
    for hidden in ("nav", ".seek", ".now"):
        assert not browser.evaluate(f"document.querySelector('{hidden}').checkVisibility()"), hidden
    for shown in (".matrix", ".timeline", ".hard video"):
        assert browser.evaluate(f"document.querySelector('{shown}').checkVisibility()"), shown
    # What is folded prints, but for the settings.
    assert browser.evaluate("document.querySelector('#confidence details table').checkVisibility()")
    assert not browser.evaluate("document.querySelector('.apart table').checkVisibility()")
    pages = browser.print().count(b"/Type /Page\n")
    assert 5 <= pages <= 30, pages

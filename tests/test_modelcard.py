"""The model card: its figures are the run's own, its warnings are there when they must be, its words are the law's."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from manifests.errors import UserError
from manifests.table import VOTES
from trainer.config import read_config
from trainer.figures import describe, gain_figures, robustness_figures, temperature_figures, view_figures
from trainer.humans import human_figures
from trainer.metrics import calibration, summarize
from trainer.modelcard import CARD, card_text, licence, write_card
from trainer.record import EVALUATION_FORMAT
from trainer.robustness import DISTURBANCES
from trainer.temperature import tempered

LABELS = ("angry", "disgust", "fear", "happy", "neutral", "sad")
TEMPLATE = Path(__file__).parents[1] / "trainer" / "templates" / "model_card.md.j2"


def guesses(rng, truth, skill, *shape):
    """Probabilities `(*shape, 6)` that lean to the truth."""
    logits = rng.normal(size=(*shape, len(LABELS))) + skill * np.eye(len(LABELS))[truth].reshape(
        len(truth), *[1] * (len(shape) - 1), -1
    )
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def evaluation():
    """What evaluation.json holds of 20 actors of both corpora, by the functions that make it."""
    rng = np.random.default_rng(7)
    rows = pd.DataFrame([
        {
            "clip_id": f"{dataset}_{actor}_{label}_{take}", "dataset": dataset, "actor": f"{dataset}_{actor}",
            "sex": ("female", "male")[actor % 2], "age": 23 + 4 * actor if dataset == "crema" else pd.NA,
            "race": "", "intensity": "normal", "emotion": label, **{vote: int(rng.integers(0, 9)) for vote in VOTES},
        }
        for dataset in ("crema", "ravdess") for actor in range(10) for label in LABELS for take in range(3)
    ])  # fmt: skip
    truth = rows["emotion"].map(LABELS.index).to_numpy()
    count, actors = len(rows), rows["actor"].to_numpy()
    views, one = guesses(rng, truth, 0.6, count, 6), guesses(rng, truth, 1.2, count)
    disturbed = guesses(rng, truth, 1.1, count, len(DISTURBANCES))
    probabilities = views.mean(axis=1)
    temperature = temperature_figures(probabilities[::2], truth[::2])
    return {
        "format": EVALUATION_FORMAT, "split": "test", "views": {"clips": 3, "flip": True},
        "weights_sha256": "ab" * 32, "manifest_sha256": "cd" * 32, "labels": list(LABELS), "clips": count,
        "actors": 20, **describe(probabilities, truth, rows, LABELS, 1),
        "temperature": {**temperature, "actors": 7},
        "calibration_after": calibration(tempered(probabilities, temperature["value"]), truth),
        "one_view": summarize(one, truth), "per_view": view_figures(views, truth),
        "tta": gain_figures(
            one, views, truth, actors, 1, clips=3, flip=True, seconds_one=31.0, seconds_all=177.0
        ),
        "robustness": {**robustness_figures(one, disturbed, truth, actors, 1), "seconds": 600.0},
        "human": human_figures(rows, LABELS, synthetic=False), "seconds": 177.0, "clips_per_second": 12.2,
        "skipped": [{"clip_id": "crema_9_sad_0", "reason": "no face"}],
    }  # fmt: skip


def split(clips, actors):
    datasets = {"crema": {"clips": clips - 100, "actors": actors - 9}, "ravdess": {"clips": 100, "actors": 9}}
    return {"clips": clips, "actors": actors, "datasets": datasets}


@pytest.fixture
def facts():
    """What run.json holds."""
    return {
        "run_id": "first", "config": read_config(Path("slowfast_face.yaml"), []).model_dump(mode="json"),
        "labels": list(LABELS), "seed": 1,
        "manifest": {
            "path": "manifest.csv", "sha256": "cd" * 32, "leaky": False, "synthetic": False,
            "counts": {"train": split(5321, 81), "val": split(771, 23), "test": split(360, 20)},
        },
        "clips": {"size": 256, "margin": 0.3, "no_face": "reject", "detector": "yunet-2023mar"},
        "command": "python -m trainer fit --run runs/first", "git_revision": "e3" * 20,
        "versions": {"python": "3.11.7", "torch": "2.14.1"},
        "hardware": {"device": "NVIDIA A10G", "cpu": "AMD EPYC 7R32", "cores": 4, "memory_gb": 16.4},
        "started": "2026-11-22T17:52:28+00:00", "model": {"name": "slowfast", "parameters": 35_612_345},
        "pretrained": {"source": "kinetics400", "sha256": "9d" * 32},
    }  # fmt: skip


FIGURE = re.compile(r"[−+]?\d[\d,]*(?:\.\d+)?")


def figures_of(text):
    return {figure.strip("−+,").replace(",", "") for figure in FIGURE.findall(text)}


def leaves(tree):
    if isinstance(tree, dict):
        yield from tree.keys()
        tree = list(tree.values())
    if isinstance(tree, list | tuple):
        for value in tree:
            yield from leaves(value)
    else:
        yield tree


def ways_to_write(value):
    """A leaf of the run's files as a card may print it: as it is, in per cent, in points, in thousands or millions."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return figures_of(str(value))
    size = abs(value)
    rounded = [f"{size:.{digits}f}" for digits in range(4)] + [f"{100 * size:.{digits}f}" for digits in range(2)]
    return {*rounded, f"{size}", f"{size:g}", f"{1000 * size:.0f}", f"{size / 1e6:.1f}"}


def test_every_figure_is_one_of_the_runs_or_of_the_fixed_words(facts, evaluation):
    known = set().union(*map(ways_to_write, [*leaves(facts), *leaves(evaluation)]))
    # What the sentences work out: chance, the input's margin, the share of right ones, times, counts of groups.
    overall, one, many = evaluation["overall"], evaluation["tta"][0], evaluation["tta"][-1]
    worst, best = (pick(evaluation["groups"]["actor"], key=lambda row: row["war"]) for pick in (min, max))
    bins = evaluation["calibration"]["bins"]
    sure, right = (sum(b[key] * b["clips"] for b in bins) / evaluation["clips"] for key in ("confidence", "accuracy"))
    derived = [
        1 / len(LABELS), 1.3, best["war"] - worst["war"], worst["war"] * worst["clips"], sure, right, sure - right,
        many["seconds_per_video"] / one["seconds_per_video"], len(LABELS), len(DISTURBANCES), 5,
        sum(variant["lost_interval"][0] > 0 for variant in evaluation["robustness"]["variants"]),
        len(evaluation["skipped"]), overall["war"], round(overall["war"] * evaluation["clips"]),
        *(sum(row) for row in evaluation["confusion"]), *(cell for row in evaluation["confusion"] for cell in row),
    ]  # fmt: skip
    known |= set().union(*map(ways_to_write, derived))
    fixed = figures_of(re.sub(r"\{[{%].*?[%}]\}", " ", TEMPLATE.read_text(encoding="utf-8")))
    fixed |= figures_of("95 % 3 clips 18 RAVDESS (Livingstone & Russo 2018, doi:10.1371/journal.pone.0196391)")
    fixed |= figures_of(
        "CC BY-NC-SA 4.0 F1 CREMA-D Cao et al. 2014, doi:10.1109/TAFFC.2014.2336244, License 1.0, ResNet-50"
    )
    card = card_text(facts, evaluation)
    # The recipe and the numbers of versions are copied whole.
    card = re.sub(r"```.*?```|^Versions:.*?$", "", card, flags=re.DOTALL | re.MULTILINE)
    assert len(figures_of(card)) > 100
    assert figures_of(card) - known - fixed == set()


def rows_of(card, title):
    """The cells of the first table whose head begins with this."""
    lines = card[card.index(f"| {title} |") :].splitlines()
    table = lines[2 : next((n for n, line in enumerate(lines) if not line.startswith("|")), len(lines))]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_tables_say_what_the_files_say(facts, evaluation):
    card = card_text(facts, evaluation)
    overall = evaluation["overall"]
    uar, war, *_ = rows_of(card, "score per video")
    low, high = overall["uar_interval"]
    assert uar[1:] == [f"{100 * overall['uar']:.1f} %", f"{100 * low:.1f} to {100 * high:.1f} %"]
    assert war[1] == f"{100 * overall['war']:.1f} %"
    recalls = [float(row[3].removesuffix(" %")) for row in rows_of(card, "class")]
    assert recalls == pytest.approx([100 * row["recall"] for row in evaluation["per_class"]], abs=0.06)
    assert rows_of(card, "split")[:2] == [["training", "crema", "5221", "72"], ["training", "ravdess", "100", "9"]]
    eces = [row[1] for row in rows_of(card, "probabilities")]
    assert eces == [f"{100 * evaluation[key]['ece']:.1f} %" for key in ("calibration", "calibration_after")]
    assert len(rows_of(card, "one view, disturbed")) == 1 + len(DISTURBANCES)
    female, *_ = [row["uar"] for row in evaluation["groups"]["sex"] if row["name"] == "female"]
    assert f"| sex | female | 180 | 10 | {100 * female:.1f} % |" in card


def test_what_the_law_and_the_licences_say_is_there(facts, evaluation):
    card = card_text(facts, evaluation)
    words = " ".join(card.split())
    assert "license: cc-by-nc-sa-4.0" in card.split("---")[1]
    for said in (
        "**at the workplace or in education** are prohibited, except for medical or safety reasons",
        "Regulation (EU) 2024/1689, Article 5(1)(f), which applies since 2 February 2025",
        "treated as non-commercial", "CC BY-NC-SA 4.0", "Open Database License 1.0",
        "doi:10.1371/journal.pone.0196391", "doi:10.1109/TAFFC.2014.2336244",
        "1 video of the manifest could not be used",
    ):  # fmt: skip
        assert said in words, said


@pytest.mark.parametrize(
    ("corpora", "known", "synthetic", "tag"),
    [
        (["crema", "ravdess"], True, False, "cc-by-nc-sa-4.0"),
        (["crema"], True, False, "odbl"),
        (["crema"], False, False, "cc-by-nc-sa-4.0"),
        (["crema", "own"], True, False, "other"),
        (["crema", "ravdess"], True, True, "apache-2.0"),
    ],
)
def test_the_strictest_corpus_decides_the_licence_and_doubt_counts_as_strict(corpora, known, synthetic, tag):
    assert licence(corpora, known=known, synthetic=synthetic) == tag


def test_a_corpus_that_only_trained_binds_the_weights_too(facts, evaluation):
    for part, name in (("train", "ravdess"), ("val", "ravdess"), ("test", "crema")):
        facts["manifest"]["counts"][part]["datasets"] = {name: {"clips": 10, "actors": 4}}
    only_crema = copy.deepcopy(evaluation)
    only_crema["groups"]["dataset"] = [row for row in evaluation["groups"]["dataset"] if row["name"] == "crema"]
    assert "license: cc-by-nc-sa-4.0" in card_text(facts, only_crema)
    for part in facts["manifest"]["counts"].values():
        del part["datasets"]
    card = card_text(facts, only_crema)
    assert "license: cc-by-nc-sa-4.0" in card
    assert "does not tell which corpora" in card


def test_drawn_faces_and_leaks_are_said_first(facts, evaluation):
    assert "> **" not in card_text(facts, evaluation)
    facts["manifest"] |= {"synthetic": True, "leaky": True}
    card = card_text(facts, evaluation)
    head = card[: card.index("## Intended use")]
    assert "> **Synthetic.**" in head
    assert "> **Leaky on purpose.**" in head
    assert "Each actor is in one split only" not in card
    assert "PLoS ONE" not in card
    assert "The actors are drawn heads" in card


def test_who_chose_the_weights_is_told(facts, evaluation):
    facts["config"]["optim"]["patience"] = None
    assert "the running average after the last step" in card_text(facts, evaluation)
    facts["config"]["optim"]["patience"] = 5
    assert "Validation actors chose the epoch and the temperature" in card_text(facts, evaluation)


def test_what_is_not_there_is_said_in_words(facts, evaluation):
    assert "has not been evaluated" in card_text(facts, None)
    bare = {**evaluation, "robustness": None, "human": [], "skipped": []}
    del facts["pretrained"]
    card = card_text({**facts, "git_revision": None}, bare)
    assert "Not measured" in card
    assert "| started from | random weights |" in card
    assert "Every video of the manifest could be used." in card
    assert "git checkout" not in card


def test_the_card_is_written_into_the_run_with_the_same_bytes_every_time(facts, evaluation, tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(facts))
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    first = write_card(tmp_path).read_bytes()
    assert write_card(tmp_path) == tmp_path / CARD
    assert (tmp_path / CARD).read_bytes() == first
    assert b"\xc2\xa0" not in first
    assert b"\n\n\n" not in first
    assert first.endswith(b"\n")


def test_what_is_no_run_or_another_versions_is_one_sentence(facts, evaluation, tmp_path):
    with pytest.raises(UserError, match="is no run directory"):
        write_card(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(facts))
    (tmp_path / "evaluation.json").write_text(json.dumps({**evaluation, "format": 1}))
    with pytest.raises(UserError, match="another version"):
        write_card(tmp_path)

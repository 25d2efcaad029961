"""The contact sheet: one page, no network, on which a person sees in a minute whether the crops are right."""

import base64
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np

from manifests.clipfile import PreparedClip, encode_frame
from manifests.clips import ClipStore, glimpse_path, read_index, read_rejected
from manifests.console import track
from manifests.files import write_text, writing_to

THUMBNAIL = 96  # pixels
QUALITY = 80
REJECTED_PICTURES = 300

# What makes a clip worth a look.
MISSED = 0.2  # share of the detector's looks
LOW_SCORE = 0.85
SMALL_FACE = 64.0  # pixels in the source


def write_sheet(clips: Path, out: Path, per_actor: int = 12) -> str:
    """Write the page about the folder that prepare made; return one line that says where it is.

    Raises UserError when the folder holds no prepared clips, and when the page cannot be written.
    """
    store = ClipStore(clips)
    rows = read_index(clips)
    by_actor: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_actor.setdefault(row["actor"], []).append(row)
    sections = [
        {
            "actor": actor,
            "total": len(by_actor[actor]),
            "clips": [_shown(row, store.open(row["clip_id"])) for row in _doubtful_first(by_actor[actor])[:per_actor]],
        }
        for actor in track(sorted(by_actor), "drawing the sheet", len(by_actor), "actors")
    ]
    rejected = [
        {**row, "picture": _glimpse(clips, row["clip_id"]) if number < REJECTED_PICTURES else ""}
        for number, row in enumerate(read_rejected(clips))
    ]
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (Path(__file__).parent / "sheet.html.j2").read_text(encoding="utf-8")
    )
    text = page.render(
        total=len(rows),
        rule=store.rule,
        spread=_spread(rows),
        sections=sections,
        rejected=rejected,
        pictures_left_out=max(0, len(rejected) - REJECTED_PICTURES),
    )
    with writing_to(out.parent):
        write_text(out, text)
    doubtful = sum(bool(doubts(row)) for row in rows)
    return (
        f"{out}: {len(rows)} clips of {len(by_actor)} actors, {doubtful} of them doubtful; {len(rejected)} rejected "
        f"({len(text) / 1e6:.1f} MB)"
    )


def doubts(row: dict[str, str]) -> list[str]:
    """What speaks against a clip's crop, in words, from its line of index.csv."""
    said = []
    if float(row["face_size"]) == 0:
        return ["no face: the middle of the picture"]
    if float(row["miss_rate"]) > MISSED:
        said.append(f"face missed in {float(row['miss_rate']):.0%} of the looks")
    if float(row["score"]) < LOW_SCORE:
        said.append(f"detector unsure, {float(row['score']):.2f}")
    if float(row["face_size"]) < SMALL_FACE:
        said.append("small face")
    return said


def tilt(roll: dict[str, Any] | None) -> str:
    """How a clip's head was held upright, in words; nothing for clips prepared without --roll."""
    if roll is None:
        return ""
    left_out = f", {roll['looks_left_out']} looks not believed" if roll["looks_left_out"] else ""
    if not roll["straightened"]:
        return f"tilted too far or too wildly to straighten{left_out}"
    return f"straightened by {roll['mean']:.0f}° ({roll['least']:.0f} to {roll['most']:.0f}){left_out}"


def _doubtful_first(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Clips with doubts, worst first; then the others spread over the whole list, so that few still show all kinds."""
    doubtful = sorted((r for r in rows if doubts(r)), key=lambda r: (-float(r["miss_rate"]), float(r["score"])))
    others = [r for r in rows if not doubts(r)]
    spread = np.argsort([_bit_reversed(place) for place in range(len(others))])
    return doubtful + [others[place] for place in spread]


def _bit_reversed(number: int) -> int:
    return int(f"{number:032b}"[::-1], 2)


def _shown(row: dict[str, str], clip: PreparedClip) -> dict[str, Any]:
    frames = clip.frames([0, len(clip) // 2, len(clip) - 1])
    strip = np.hstack([cv2.resize(f, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA) for f in frames])
    picture = base64.b64encode(encode_frame(strip, QUALITY)).decode()
    shown = {"picture": picture, "width": 3 * THUMBNAIL, "height": THUMBNAIL}
    return {**row, **shown, "doubts": doubts(row), "tilt": tilt(clip.meta.get("roll"))}


def _glimpse(clips: Path, clip_id: str) -> str:
    path = glimpse_path(clips, clip_id)
    return base64.b64encode(path.read_bytes()).decode() if path.exists() else ""


def _spread(rows: list[dict[str, str]]) -> dict[str, list[str]]:
    """How the clips' facts lie: smallest, 5 %, median, 95 %, largest."""
    columns = {
        "face in the source, px": ("face_size", "{:.0f}"),
        "detector's score": ("score", "{:.2f}"),
        "looks without the face": ("miss_rate", "{:.0%}"),
        "seconds": ("seconds", "{:.2f}"),
        "frames": ("frames", "{:.0f}"),
    }
    return {
        name: [form.format(value) for value in np.percentile([float(r[column]) for r in rows], (0, 5, 50, 95, 100))]
        for name, (column, form) in columns.items()
    }

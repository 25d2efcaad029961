"""The README's pictures, from the demo's own run: its report on a desk and on a phone in the dark, and `make monitor`.

python tests/picture.py runs/demo .github
"""

import json
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import numpy as np
from browser import Browser
from cloud import cloud
from PIL import Image, ImageDraw, ImageFilter
from watching import stage

from infra.box import meter

DESK, PHONE = (960, 866), (350, 660)  # CSS pixels
EDGE = 40
MOMENT = 0.66  # of the film's length
SEEK = """(card => {
    document.documentElement.style.scrollBehavior = 'auto';
    card.scrollIntoView(); scrollBy(0, -16);
    const slider = card.querySelector('input'), video = card.querySelector('video');
    const there = new Promise(resolve => video.addEventListener('seeked', resolve));
    slider.value = MOMENT * slider.max; slider.dispatchEvent(new Event('input'));
    return there;
})(document.querySelector('.hard .card'))"""


def main(demo: Path, target: Path) -> None:
    photograph_report(demo, target / "report.png")
    draw_monitor(demo / "slowfast", target / "monitor.svg")


def draw_monitor(run: Path, target: Path) -> None:
    """The run as `make monitor` would show it, had it been in AWS: with this machine, without GPU or price."""
    parts = {name: json.loads((run / f"{name}.json").read_text()) for name in ("status", "outcome")}
    began = datetime.fromisoformat(json.loads((run / "run.json").read_text())["started"])
    parts["machine"] = {"phase": "ended", "dollars": 0.0, "dollars_at_finish": 0.0, **meter.read_machine(Path("/"))}
    with tempfile.TemporaryDirectory() as folder, cloud(Path(folder) / "aws") as aws, stage(aws, Path(folder)) as desk:
        written = {"metrics": (run / "metrics.jsonl").read_bytes(), "output": (run / "log.txt").read_bytes()}
        desk.put_run(f"{began:%Y-%m-%d-%H%M%S}-demo", **parts, **written)
        done = desk.make("monitor", "--svg", str(target.resolve()))
        assert done.returncode == 0, done.stderr


def photograph_report(demo: Path, target: Path) -> None:
    report = demo / "slowfast" / "report.html"
    # The browser may still write its profile when it is told to end.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, Browser(Path(folder)) as browser:
        browser.open(report, *DESK)
        desk = browser.view()
        browser.open(report, *PHONE, dark=True)
        # A moment within the film, so that the line of time shows its cursor.
        browser.evaluate(SEEK.replace("MOMENT", str(MOMENT)), wait=True)
        phone = browser.view()
    lay(desk, phone).save(target, optimize=True)


def lay(desk: np.ndarray, phone: np.ndarray) -> Image.Image:
    """The phone beside the desk's page, on the same ground, with round corners and a shadow."""
    held = Image.fromarray(phone)
    ground = tuple(int(value) for value in desk[0, 0])
    picture = Image.new("RGB", (desk.shape[1] + held.width + EDGE, desk.shape[0]), ground)
    picture.paste(Image.fromarray(desk))
    mask = Image.new("L", held.size)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, held.width - 1, held.height - 1), 28, fill=255)
    at = (desk.shape[1], (picture.height - held.height) // 2)
    shadow = Image.new("L", picture.size)
    shadow.paste(150, (at[0], at[1] + 8), mask)
    picture.paste((20, 20, 30), (0, 0), shadow.filter(ImageFilter.GaussianBlur(18)))
    picture.paste(held, at, mask)
    return picture


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""The README's picture of the report, from the demo's own: the page on a desk, and on a phone in the dark.

python tests/picture.py runs/demo .github/report.png
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from browser import Browser
from PIL import Image, ImageDraw, ImageFilter

DESK, PHONE = (960, 740), (350, 660)  # CSS pixels
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
    report = demo / "slowfast" / "report.html"
    with tempfile.TemporaryDirectory() as folder, Browser(Path(folder)) as browser:
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

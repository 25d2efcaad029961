"""What tests of pages look for in a browser: boxes that stick out or overlap, and what axe objects to."""

import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from browser import Browser

AXE = "axe-core@4.14.1"

# Cells and headings whose words are wider than their own box, and SVG texts that leave their drawing.
TOO_WIDE = """[...document.querySelectorAll('td, th, h1, h2, h3, dd, dt, p, pre, button, summary, caption')]
    .filter(e => !e.closest('.unseen') && e.scrollWidth > e.clientWidth + 1 && e.clientWidth)
    .map(e => e.textContent.trim().slice(0, 40))
    .concat([...document.querySelectorAll('svg.chart text')].filter(t => {
        const inner = t.getBoundingClientRect(), outer = t.closest('svg').getBoundingClientRect();
        return inner.left < outer.left - 1 || inner.right > outer.right + 1 || inner.bottom > outer.bottom + 1;
    }).map(t => t.textContent))"""

# Pairs of texts, of which neither holds the other, that are drawn one over the other.
OVERLAPPING = """(() => {
    const seen = e => e.checkVisibility() && !e.closest('.unseen, .ticks') && e.textContent.trim();
    const own = e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    const boxes = [...document.body.querySelectorAll('*')].filter(e => own(e) && seen(e)).flatMap(e => {
        const range = document.createRange();
        const texts = [...e.childNodes].filter(n => n.nodeType === 3 && n.textContent.trim());
        return texts.flatMap(n => { range.selectNodeContents(n);
            return [...range.getClientRects()].map(r => ({e, r, words: n.textContent.trim().slice(0, 30)})); });
    }).sort((a, b) => a.r.top - b.r.top);
    const clash = [];
    boxes.forEach((a, i) => {
        for (const b of boxes.slice(i + 1)) {
            if (b.r.top > a.r.bottom) break;
            const wide = Math.min(a.r.right, b.r.right) - Math.max(a.r.left, b.r.left);
            const high = Math.min(a.r.bottom, b.r.bottom) - Math.max(a.r.top, b.r.top);
            if (wide > 2 && high > 0.4 * Math.min(a.r.height, b.r.height)) clash.push(a.words + ' | ' + b.words);
        }
    });
    return clash;
})()"""


def wait_for(browser: Browser, condition: str, seconds: float = 60) -> None:
    """Until an expression in the page is true."""
    deadline = time.monotonic() + seconds
    while not browser.evaluate(condition):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain for {condition}"
        time.sleep(0.05)


def violations(browser: Browser) -> list[str]:
    """What axe-core objects to in the page, all of it: rule, help, and the first place. Skips where there is no axe."""
    browser.evaluate(axe_source())
    found: list[dict[str, Any]] = browser.evaluate("axe.run(document).then(r => r.violations)", wait=True)
    return [f"{v['id']}: {v['help']} ({len(v['nodes'])}x) {v['nodes'][0]['html'][:120]}" for v in found]


@lru_cache
def axe_source() -> str:
    """axe-core, from the file that SLOWFAST_AXE names or from the npm registry; kept for the next run of the tests."""
    kept = Path(os.environ.get("SLOWFAST_AXE", Path(tempfile.gettempdir()) / f"{AXE}.min.js"))
    if not kept.is_file():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("no axe: neither SLOWFAST_AXE nor npm")
        with tempfile.TemporaryDirectory() as folder:
            try:
                subprocess.run([npm, "pack", AXE], cwd=folder, check=True, capture_output=True, timeout=60)
            except (subprocess.SubprocessError, OSError):
                pytest.skip(f"no axe: npm pack {AXE} did not work")
            with tarfile.open(next(Path(folder).glob("*.tgz"))) as package:
                source = package.extractfile("package/axe.min.js")
                assert source is not None
                kept.write_bytes(source.read())
    return kept.read_text(encoding="utf-8")

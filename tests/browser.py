"""A headless Chromium, driven over its debugging pipe: what a page asks for, complains of, measures and looks like."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np

CHROMIUM = shutil.which("chromium")
# Quiet: the browser itself must not reach for the network, or its requests would be taken for the page's.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
]


class Browser:
    """One page in a fresh profile. As a context it ends the browser that it started."""

    def __init__(self, profile: Path) -> None:
        self.profile = profile
        self.events: list[dict[str, Any]] = []
        self.calls = 0
        self.session: str | None = None

    def __enter__(self) -> Self:
        to_read, self.to_browser = os.pipe()
        self.from_browser, to_write = os.pipe()
        # Chromium reads its file descriptor 3 and writes 4; a shell puts ours there.
        command = [f'exec 3<&{to_read} 4>&{to_write}; exec "$@"', "sh", str(CHROMIUM), *FLAGS]
        self.process = subprocess.Popen(
            ["bash", "-c", *command, f"--user-data-dir={self.profile}"],
            pass_fds=(to_read, to_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self.answers = os.fdopen(self.from_browser, "rb")
        self.unread = b""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self.answers.close()
        os.close(self.to_browser)

    def call(self, method: str, **parameters: Any) -> Any:
        """Ask the browser for something and wait for its answer; what it reports meanwhile is kept in `events`."""
        self.calls += 1
        message: dict[str, Any] = {"id": self.calls, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self.calls:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self.unread:
            data = self.answers.read1(1 << 16)
            assert data, "Chromium ended early"
            self.unread += data
        message, self.unread = self.unread.split(b"\0", 1)
        return json.loads(message)

    def open(self, page: Path, width: int, height: int = 900, *, dark: bool = False, scale: float = 1) -> None:
        """Load a file into a window of this width in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="screen", features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def evaluate(self, script: str, *, wait: bool = False) -> Any:
        """The value of an expression in the page; `wait` for it if it is a promise."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=wait)
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """A key of the keyboard, down and up: Tab, Enter, End, Home, ArrowRight."""
        code = {"Tab": 9, "Enter": 13, "End": 35, "Home": 36, "ArrowRight": 39}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def complaints(self) -> list[str]:
        """What the console holds of errors, warnings and violations since the page was opened."""
        said = [e["params"]["entry"]["text"] for e in self.events if e["method"] == "Log.entryAdded"]
        return said + [e["method"] for e in self.events if e["method"] == "Runtime.exceptionThrown"]

    def requests(self) -> list[str]:
        """Every address that the page asked for, data URIs aside."""
        asked = [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith("data:")]

    def view(self, box: dict[str, float] | None = None) -> np.ndarray:
        """(H, W, 3) uint8 RGB of what the window shows now, or of a box of the page."""
        clip = {"clip": box | {"scale": 1}, "captureBeyondViewport": True} if box else {}
        data = base64.b64decode(self.call("Page.captureScreenshot", **clip)["data"])
        return np.ascontiguousarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1])

    def picture(self, selector: str) -> np.ndarray:
        """(H, W, 3) uint8 RGB of what an element looks like now."""
        return self.view(self.evaluate(
            f"(r => ({{x: r.x + scrollX, y: r.y + scrollY, width: r.width, height: r.height}}))"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        ))  # fmt: skip

    def print(self) -> bytes:
        """The page as a PDF, as a printer without colour for backgrounds would get it."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"])

    def screenshot(self, target: Path) -> None:
        """The whole page, as long as it is."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
        target.write_bytes(base64.b64decode(data))

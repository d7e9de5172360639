"""A headless Chromium, by the WebDriver protocol of chromedriver.

Debian: `apt-get install chromium chromium-driver`.

References:
    - https://www.w3.org/TR/webdriver2/
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Keys without a character, as WebDriver numbers them.
ESCAPE, DOWN, UP, END, HOME = "\ue00c", "\ue015", "\ue013", "\ue010", "\ue011"

# A proxy of the environment is not for this machine.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def find_browser() -> tuple[str, str]:
    """Return the paths of Chromium and its driver, or skip the test."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("Chromium or chromedriver is not installed")
    return browser, driver


class Browser:
    """A session of the browser; every method waits for its effect."""

    def __init__(self, address: str, capabilities: dict[str, Any]) -> None:
        self._address = address
        answer = self._call("POST", "/session", {"capabilities": capabilities})
        self._session = f"/session/{answer['sessionId']}"

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}
        )
        request.method = method
        try:
            with _OPENER.open(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error

    def open(self, path: Path) -> None:
        self._call("POST", f"{self._session}/url", {"url": path.as_uri()})

    def reload(self) -> None:
        self._call("POST", f"{self._session}/refresh", {})

    def run(self, script: str, *arguments: Any) -> Any:
        """Returns the value of a script with `return`."""
        body = {"script": script, "args": list(arguments)}
        return self._call("POST", f"{self._session}/execute/sync", body)

    def press(self, keys: str) -> None:
        """Presses keys one after another, wherever the focus is."""
        steps = [
            {"type": kind, "value": key}
            for key in keys
            for kind in ("keyDown", "keyUp")
        ]
        action = {"type": "key", "id": "keyboard", "actions": steps}
        self._call("POST", f"{self._session}/actions", {"actions": [action]})

    def text(self, selector: str) -> str:
        return self.run(
            "return document.querySelector(arguments[0]).textContent", selector
        )

    def screenshot(self, path: Path) -> None:
        answer = self._call("GET", f"{self._session}/screenshot")
        path.write_bytes(base64.b64decode(answer))

    def errors(self) -> list[str]:
        """What the console has of errors, and of what the policy has blocked."""
        entries = self._call("POST", f"{self._session}/se/log", {"type": "browser"})
        return [e["message"] for e in entries if e["level"] in ("SEVERE", "ERROR")]

    def close(self) -> None:
        with contextlib.suppress(AssertionError, OSError):
            self._call("DELETE", self._session)


@contextlib.contextmanager
def opened_browser(downloads: Path, *, size: str = "1100,800") -> Iterator[Browser]:
    """Starts a browser whose downloads come to a folder, or skips the test."""
    browser, driver = find_browser()
    process = subprocess.Popen(
        [driver, "--port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        port = None
        for line in process.stdout or ():
            if "successfully on port " in line:
                port = line.rpartition("on port ")[2].strip(" .\n")
                break
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--window-size={size}",
        ]
        flags += ["--disable-dev-shm-usage", "--force-device-scale-factor=1"]
        options = {
            "binary": browser,
            "args": [*flags, f"--user-data-dir={downloads / 'profile'}"],
            "prefs": {"download.default_directory": str(downloads)},
        }
        capabilities = {
            "alwaysMatch": {
                "goog:chromeOptions": options,
                "goog:loggingPrefs": {"browser": "ALL"},
            }
        }
        session = Browser(f"http://127.0.0.1:{port}", capabilities)
        try:
            yield session
        finally:
            session.close()
    finally:
        process.terminate()
        process.wait(20)


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """Returns the first true value of a function."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError("the condition has not become true")

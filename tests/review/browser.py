"""Headless Chromium with its own driver, where a machine has both; nothing is downloaded."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no chromium and chromedriver: apt-get install chromium chromium-driver"
)
_FLAGS = (
    *("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--window-size=1280,900"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic"),
)


class Page:
    """The page of a review, used by its keys."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, address: str) -> "Page":
        # What has only another fragment is not loaded again.
        self.driver.get("about:blank")
        self.driver.get(address)
        self.wait(lambda: self.run("return Boolean(current)"), "a question")
        return self

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def run(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def text(self, name: str) -> str:
        return str(self.run("return document.getElementById(arguments[0]).textContent", name))

    def shown(self, name: str) -> bool:
        return bool(self.run("return !document.getElementById(arguments[0]).hidden", name))

    @property
    def qa_id(self) -> str:
        return str(self.run("return current.id"))

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 20, 0.02).until(lambda _: condition(), f"waited for {what}")

    def answer(self, key: str) -> None:
        self.press(key)
        self.wait(lambda: self.run("return Boolean(current.revealed) && !busy"), "the derived answer")

    def judge(self, *keys: str) -> None:
        """Press keys that give a verdict, and wait for what follows it."""
        before = self.qa_id
        self.press(*keys)
        self.wait(lambda: not self.run("return busy") and self.qa_id != before, "the next question")

    def complaints(self) -> list[str]:
        """Errors of the page, such as what its policy forbids."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """A browser with a new profile."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*_FLAGS, f"--user-data-dir={profile}", *(["--no-sandbox"] if os.geteuid() == 0 else [])):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # A page that stops at an alert is seen as an error by whatever is asked next.
    options.unhandled_prompt_behavior = "ignore"
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()

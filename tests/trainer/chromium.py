"""Chromium, as Qt ships it in a wheel, opening one page: `python -m tests.trainer.chromium`.

It runs in a process of its own, with no window and no network, and prints as JSON what a script
found in the page. A Qt that cannot start here (a library of the system's is missing) is said with
the exit code `UNAVAILABLE`.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

UNAVAILABLE = 77
# Nothing listens there, so whatever a page asked of a network would fail, and show as an error.
NO_PROXY_ANSWERS = "http://127.0.0.1:9"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("page", type=Path)
    parser.add_argument("--script", type=Path, required=True, help="its last value is printed")
    parser.add_argument("--width", type=int, default=1000)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--png", type=Path, help="a picture of the whole page")
    parser.add_argument("--pdf", type=Path, help="the page as it prints")
    return parser.parse_args()


def environment(dark: bool) -> dict[str, str]:
    """Return what Qt's Chromium reads when it starts."""
    flags = [
        "--disable-gpu",
        f"--proxy-server={NO_PROXY_ANSWERS}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
    ]
    if os.geteuid() == 0:  # Its sandbox refuses to start as root.
        flags.append("--no-sandbox")
    return {"QT_QPA_PLATFORM": "offscreen", "QTWEBENGINE_CHROMIUM_FLAGS": " ".join(flags)}


def main() -> int:
    wanted = arguments()
    os.environ.update(environment(wanted.dark))
    try:
        from PySide6.QtCore import QTimer, QUrl
        from PySide6.QtWebEngineWidgets import QWebEngineView
        from PySide6.QtWidgets import QApplication
    except ImportError as missing:
        print(missing, file=sys.stderr)
        return UNAVAILABLE
    application = QApplication(sys.argv[:1])
    view = QWebEngineView()
    view.resize(wanted.width, 1000)
    view.show()

    def done() -> None:
        if wanted.png:
            view.grab().save(str(wanted.png))
        if wanted.pdf:
            view.page().pdfPrintingFinished.connect(lambda *_: application.quit())
            view.page().printToPdf(str(wanted.pdf))
        else:
            application.quit()

    def stretch(height: float) -> None:
        view.resize(wanted.width, min(int(height) + 1, 16_000))
        QTimer.singleShot(2500, done)  # Only for a person's eyes: until it is painted.

    def answered(answer: str) -> None:
        print(answer)
        if wanted.png:
            view.page().runJavaScript("document.documentElement.scrollHeight", stretch)
        else:
            done()

    def loaded(well: bool) -> None:
        if not well:
            application.exit(1)
        view.page().runJavaScript(wanted.script.read_text(), answered)

    view.loadFinished.connect(loaded)
    view.load(QUrl.fromLocalFile(str(wanted.page.resolve())))
    return application.exec()


if __name__ == "__main__":
    sys.exit(main())

"""Open pages in a real Chromium, and read their content: over the DevTools protocol, on two pipes.

Debian's ``chromium-headless-shell``, which ``script/setup --development`` installs. It sees the network of
the namespace that it is started in, and nothing of it outlives the context.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from integration.lab import LabError, wait_for
from integration.namespaces import Namespace
from tests.patience import PATIENCE

_PROGRAM = "chromium-headless-shell"
_ANSWER_SECONDS = 20.0
_ARGUMENTS = (
    "--remote-debugging-pipe",
    "--no-sandbox",  # root has none; nothing is opened but pages of ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)


def why_not() -> str:
    """Return why there is no browser; empty if there is one."""
    if shutil.which(_PROGRAM) is None:
        return f"no {_PROGRAM} here; script/setup --development installs it, as root"
    return ""


@dataclass(slots=True)
class Browser:
    """A browser with one window."""

    _to: int
    _from: int
    _buffer: bytes = b""
    _session: str | None = None
    _number: int = 0
    complaints: list[str] = field(default_factory=list)
    """What it found wrong with the pages since it was started: errors, and what a policy forbids."""

    def begin(self) -> None:
        """Open the window."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.ask(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Go to an address, and wait until all of it is there."""
        answer = self.ask("Page.navigate", url=url)
        if answer.get("errorText"):
            raise LabError(f"{url}: {answer['errorText']}")
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def evaluate(self, expression: str) -> Any:  # noqa: ANN401 - whatever the page has
        """Return the value of an expression on the page."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise LabError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Wait until an expression holds on the page, which may be about to give way to another."""
        wait_for(lambda: self._holds(expression), f"{expression} to hold", _ANSWER_SECONDS)

    def _holds(self, expression: str) -> bool:
        try:
            return bool(self.evaluate(expression))
        except LabError as error:
            if any(sign in str(error) for sign in _SIGNS_OF_LEAVING):
                return False
            raise

    def press(self, *keys: str) -> None:
        """Press keys one after the other: ``Tab``, ``Enter``, or the characters of a text."""
        for key in keys:
            code, text = _KEYS.get(key, (0, key))
            common = {"key": key, "windowsVirtualKeyCode": code}
            self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
            self.ask("Input.dispatchKeyEvent", type="keyUp", **common)

    def write(self, text: str) -> None:
        """Write a text into the field that has the focus."""
        self.ask("Input.insertText", text=text)

    def resize(self, width: int, height: int) -> None:
        """Give the window a size, in pixels of the page; narrow ones are those of a phone."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def prefer(self, **features: str) -> None:
        """Set the reader's preferences, like ``prefers_color_scheme="dark"``."""
        wanted = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.ask("Emulation.setEmulatedMedia", features=wanted)

    def forbid_scripts(self, *, forbidden: bool = True) -> None:
        """Have pages run no scripts from the next one on, or allow it again."""
        self.ask("Emulation.setScriptExecutionDisabled", value=forbidden)

    def picture(self, *, whole: bool = True) -> bytes:
        """Return a picture of the page, as a PNG.

        Args:
            whole: all of it, and not just what the window shows.
        """
        taken = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(taken["data"])

    def accessible(self) -> list[dict[str, Any]]:
        """Return the nodes that a screen reader hears of."""
        nodes = self.ask("Accessibility.getFullAXTree")["nodes"]
        return [node for node in nodes if not node.get("ignored")]

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401 - as the protocol has them
        """Send a command, and return the answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise LabError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        """Keep the browser's complaints."""
        match event:
            case {"method": "Log.entryAdded", "params": {"entry": entry}} if entry["level"] != "info":
                self.complaints.append(f"{entry['text']} {entry.get('url', '')}")
            case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": details}}:
                self.complaints.append(str(details.get("text")))
            case {"method": "Network.loadingFailed", "params": failed} if not failed.get("canceled"):
                self.complaints.append(str(failed.get("errorText")))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], _ANSWER_SECONDS * PATIENCE)
            if not ready:
                raise LabError("the browser does not answer")
            read = os.read(self._from, 1 << 20)
            if not read:
                raise LabError("the browser has ended")
            self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message


_SIGNS_OF_LEAVING = ("Inspected target navigated", "context was destroyed", "Cannot find context")
"""How it says that a page went while it was asked about it."""

_KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " "), "ArrowDown": (40, "")}
"""Keys that are no characters: their codes, and what they write."""


@contextlib.contextmanager
def browser_on(namespace: Namespace | None = None) -> Iterator[Browser]:
    """Start a browser on a host, or where the caller is, and end it with the context."""
    with contextlib.ExitStack() as stack:
        folder = tempfile.mkdtemp(prefix="sgagent-browser-")
        stack.callback(_remove, folder)
        to_us, to_it = _pipe(stack), _pipe(stack)
        argv = (*_entering(namespace), _PROGRAM, *_ARGUMENTS, f"--user-data-dir={folder}")
        process = stack.enter_context(_started(argv, to_it[0], to_us[1]))
        stack.callback(os.killpg, process.pid, signal.SIGKILL)
        browser = Browser(to_it[1], to_us[0])
        browser.begin()
        yield browser


def _remove(folder: str) -> None:
    """Remove the browser's folder, into which those of its processes write that have not quite ended."""

    def is_gone() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return not os.path.exists(folder)  # noqa: PTH110 - the name is what there is

    wait_for(is_gone, f"{folder} to be left alone")


def _pipe(stack: contextlib.ExitStack) -> tuple[int, int]:
    """Return both ends of a pipe, with numbers above those that the browser wants."""
    low = os.pipe()
    read, write = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _FIRST_OF_OURS) for end in low)
    for end in low:
        os.close(end)
    for end in (read, write):
        stack.callback(os.close, end)
    return read, write


_FIRST_OF_OURS = 20


def _entering(namespace: Namespace | None) -> Sequence[str]:
    return () if namespace is None else ("ip", "netns", "exec", namespace.name)


def _started(argv: Sequence[str], read: int, write: int) -> subprocess.Popen[bytes]:
    """Start the browser with the pipes where it looks for them: 3 to read from, 4 to write to."""
    shell = f'exec setpriv --pdeathsig KILL "$@" 3<&{read} 4>&{write}'
    return subprocess.Popen(
        ("bash", "-c", shell, "browser", *argv),
        pass_fds=(read, write),
        start_new_session=True,  # so that all its processes can be ended together
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

"""Run a real nginx in a namespace of the bench, with TLS of an authority that the test made up.

``script/setup --development`` fetches Debian's package; it is unpacked and never installed, so that no
service of its runs on this machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from integration.lab import LabError, wait_for
from integration.namespaces import Namespace, set_network_namespace
from tests.certificates import Authority, Issued
from tests.patience import PATIENCE

PORT = 8443
TOKEN = "a-token-of-the-test"  # noqa: S105 - opens nothing but a server of the test

_SERVER = Path(__file__).parent.parent / ".cache/packages/nginx/usr/sbin/nginx"
_START_SECONDS = 30.0
_CONFIGURATION = """
daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{}}
http {{
  access_log {directory}/access.log;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  default_type text/plain;
  gzip on;
  gzip_types *;
  gzip_min_length 1;
  server {{
    listen {port} ssl;
    ssl_certificate {issued.certificate};
    ssl_certificate_key {issued.key};
    ssl_client_certificate {authority};
    ssl_verify_client optional;
    root {directory}/site;
    location / {{ }}
    location /clients/ {{ if ($ssl_client_verify != SUCCESS) {{ return 403; }} }}
    location /tokens/ {{ if ($http_authorization != "Bearer {token}") {{ return 401; }} }}
    location /elsewhere/ {{ return 302 https://elsewhere.example.com$request_uri; }}
    location /unencrypted/ {{ return 301 http://$host$request_uri; }}
    location /circle/ {{ return 302 $request_uri; }}
    location /hung-up/ {{ return 444; }}
    location /closed/ {{ add_header Retry-After 120 always; return 503; }}
    location /slow/ {{ gzip off; limit_rate 100; }}
    location /packed/ {{ gzip_static always; }}
    location /behind/ {{ proxy_pass http://127.0.0.1:{backend_port}; proxy_read_timeout 1s; }}
  }}
}}
"""


def why_not() -> str:
    """Return why there is no nginx; empty if there is one."""
    if not _program().exists():
        return "no nginx in .cache/packages; script/setup --development fetches it, as root"
    return ""


def _program() -> Path:
    """Return the program: the unpacked one, else one that is installed anyway."""
    return _SERVER if _SERVER.exists() else Path(shutil.which("nginx") or _SERVER)


@dataclass(slots=True)
class Nginx:
    """A server in a namespace: running or not."""

    namespace: Namespace
    directory: Path
    authority: Authority
    _process: subprocess.Popen[bytes] | None = None

    @property
    def site(self) -> Path:
        """Return the directory of its files."""
        return self.directory / "site"

    def publish(self, content: str | bytes, name: str = "policy.yaml", age_seconds: float = 0.0) -> None:
        """Serve a document from now on, as if written some time ago; it is replaced whole."""
        path = self.site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.new")
        draft.write_bytes(content if isinstance(content, bytes) else content.encode())
        written_at = time.time() - age_seconds
        os.utime(draft, (written_at, written_at))
        draft.rename(path)

    def configure(self, issued: Issued, backend_port: int = 1) -> None:
        """Write the configuration, with this certificate, and a port of loopback that is behind it."""
        text = _CONFIGURATION.format(
            directory=self.directory,
            port=PORT,
            issued=issued,
            authority=self.authority.file,
            token=TOKEN,
            backend_port=backend_port,
        )
        (self.directory / "nginx.conf").write_text(text)

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self._process = subprocess.Popen(
            [_program(), "-p", self.directory, "-e", "error.log", "-c", "nginx.conf"],
            preexec_fn=self._enter,  # noqa: PLW1509 - makes one system call, no lock is involved
        )
        wait_for(self._is_up, "nginx to be up", _START_SECONDS)

    def stop(self) -> None:
        """End it and all connections to it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_START_SECONDS * PATIENCE)
            self._process = None

    def statuses(self) -> list[int]:
        """Return the status of each answer so far; it is written when the answer may have arrived already."""
        whole, _, _ = (self.directory / "access.log").read_text().rpartition("\n")
        return [int(line.split('"')[2].split()[0]) for line in whole.splitlines()]

    def wait_for_statuses(self, *expected: int) -> None:
        """Wait until just these answers were given."""
        wait_for(lambda: self.statuses() == list(expected), f"the answers {expected}, not {self.statuses()}")

    def _is_up(self) -> bool:
        """Tell whether it listens and has a worker: one that is told to end earlier may not hear of it."""
        if self._process is None or self._process.poll() is not None:
            raise LabError(f"nginx ended: {(self.directory / 'error.log').read_text()}")
        pid = self._process.pid
        if not Path(f"/proc/{pid}/task/{pid}/children").read_text():
            return False
        return f":{PORT} " in self.namespace.run("ss", "-Hltn", "sport", "=", str(PORT))

    def _enter(self) -> None:
        with self.namespace.path.open() as target:
            set_network_namespace(target.fileno())


@contextlib.contextmanager
def nginx_in(namespace: Namespace, directory: Path, *hosts: str) -> Iterator[Nginx]:
    """Run a server until the context is left.

    Args:
        namespace: where it listens, at every address.
        directory: for all its files.
        hosts: the names and addresses that its certificate is for.
    """
    directory.mkdir()
    (directory / "site").mkdir()
    server = Nginx(namespace, directory, Authority(directory))
    server.configure(server.authority.issue(*hosts))
    server.start()
    try:
        yield server
    finally:
        server.stop()

"""A board for tests: an ssh server on the loopback address, with a user and a Python of its own.

The user can import NumPy and ONNX Runtime, and neither edgewise nor PyTorch.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path

import psutil
import pytest

PACKAGES = ("numpy", "onnxruntime")
CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
AllowUsers {user}
"""
CLIENT = """
IdentityFile {folder}/user
IdentitiesOnly yes
UserKnownHostsFile {folder}/known_hosts
GlobalKnownHostsFile /dev/null
StrictHostKeyChecking yes
"""


class Board:
    """The device."""

    def __init__(self, folder: Path, user: str) -> None:
        self.folder, self.user = folder, user
        self.home = folder / "home"
        self.server: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    @property
    def address(self) -> str:
        return f"ssh:{self.user}@127.0.0.1:{self.port}"

    @property
    def device(self) -> str:
        """As `open_device` takes it, with the Python that has a runtime."""
        return f"{self.address},python=env/python"

    @property
    def path(self) -> str:
        """PATH with a program ssh that reads the board's settings instead of the user's own."""
        return f"{self.folder}/bin:{os.environ['PATH']}"

    def start(self) -> None:
        command = [_program("sshd"), "-D", "-e", "-f", str(self.folder / "sshd_config")]
        with (self.folder / "sshd.log").open("ab") as log:
            self.server = subprocess.Popen(command, stderr=log)
        for _ in range(100):
            with socket.socket() as there:
                if there.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError((self.folder / "sshd.log").read_text())

    def cut(self) -> None:
        """Ends all connections, as a network does that fails for a moment."""
        assert self.server
        for process in psutil.Process(self.server.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # it ended with the one before
                if process.name().startswith("sshd"):
                    process.kill()

    def stop(self) -> None:
        """Goes away, until `start`."""
        if self.server:
            self.cut()
            self.server.kill()
            self.server.wait()
            self.server = None

    def processes(self) -> list[str]:
        """What runs there: the scripts' names."""
        found = []
        for process in psutil.process_iter(["username", "cmdline"]):
            if process.info["username"] == self.user:
                words = process.info["cmdline"] or []  # of a zombie, none
                found += [Path(word).name for word in words if ".py" in word]
        return found


@contextmanager
def loopback_board() -> Iterator[Board]:
    """A board that is on; skips the test where there can be none."""
    if getpass.getuser() != "root" or not shutil.which("useradd"):
        pytest.skip("only root can add a user to the machine")
    for program in ("sshd", "ssh", "ssh-keygen"):
        if not _program(program):
            pytest.skip(f"{program} is not installed (Debian: apt-get install openssh-server)")
    # Not pytest's folder: no other user may go there.
    board = Board(Path(tempfile.mkdtemp(prefix="edgewise-board-")), f"edgewise{os.getpid()}")
    board.folder.chmod(0o755)
    _run("useradd", "--home-dir", str(board.home), "-m", "-s", "/bin/bash", "-p", "*", board.user)
    try:
        _furnish(board)
        board.start()
        yield board
    finally:
        board.stop()
        for process in psutil.process_iter(["username"]):
            if process.info["username"] == board.user:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        _run("userdel", "-f", board.user)
        shutil.rmtree(board.folder)


def _furnish(board: Board) -> None:
    """The keys, both sides' settings, and the other Python."""
    folder = board.folder
    Path("/run/sshd").mkdir(exist_ok=True)  # where the server goes before anybody has logged in
    for name in ("host", "user", "stranger"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name))
    host = (folder / "host.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{board.port} {host}")
    settings = CONFIG.format(port=board.port, folder=folder, user=board.user)
    (folder / "sshd_config").write_text(settings)
    (folder / "ssh_config").write_text(CLIENT.format(folder=folder))
    (folder / "bin").mkdir()
    script = f'#!/bin/sh\nexec {_program("ssh")} -F {folder}/ssh_config "$@"\n'
    _write_program(folder / "bin" / "ssh", script)
    # A login shell that talks to whoever comes.
    (board.home / ".bashrc").write_text("echo '{}'; echo Welcome to the board\n")
    _other_python(board)


def _other_python(board: Board) -> None:
    """env/python: a system's Python of this version, with `PACKAGES` and nothing else."""
    packages = board.home / "env" / "packages"
    packages.mkdir(parents=True)
    for name in PACKAGES:
        found = import_module(name).__file__
        assert found
        site = Path(found).parent.parent
        for path in [*site.glob(f"{name}"), *site.glob(f"{name}.libs"), *site.glob(f"{name}-*")]:
            shutil.copytree(path, packages / path.name)  # a link may lead where no other may go
    version = f"python3.{sys.version_info.minor}"
    for folder in ("/usr/bin", "/usr/local/bin", str(Path(sys.base_prefix, "bin"))):
        python = Path(folder, version)
        script = board.home / "env" / "python"
        _write_program(script, f'#!/bin/sh\nPYTHONPATH={packages} exec {python} -s "$@"\n')
        words = [str(script), "-c", "import onnxruntime"]
        if subprocess.run(words, user=board.user, check=False, capture_output=True).returncode == 0:
            return
    pytest.skip(f"there is no {version} that another user can run with ONNX Runtime")


def _write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _program(name: str) -> str:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin") or ""


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)

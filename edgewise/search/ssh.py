"""A device that is reached by ssh: `ssh:user@host`. It needs Python 3.8, NumPy and one runtime."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil

from edgewise.errors import EdgewiseError, UsageError
from edgewise.search.device_client import (
    GONE,
    RUNNER,
    SCRIPTS,
    RunnerDevice,
    RunnerEnded,
    Said,
    ask,
)

# A host that began with "-" would be an option to ssh.
ADDRESS = re.compile(r"((?:[^@\s,-][^@\s,]*@)?(?:\[[^\]\s,]+\]|[^@:\s,\[-][^@:\s,]*))(?::(\d+))?")
EXAMPLE = "ssh:user@host, ssh:user@host:port or ssh:user@host,python=PATH"
FOLDER = ".cache/edgewise-device"  # in the home directory, where ssh starts
NO_COMMAND = 127  # a shell's exit status for a program that is not there
# Asks nothing: no password, no new host's key. Notices within half a minute that a device is gone.
OPTIONS = ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=10", "ServerAliveCountMax=3")
# Run there by its Python, before anything of ours is there: writes the scripts, asks for the facts.
BOOT = """
import json, os, subprocess, sys
if sys.version_info < (3, 8):
    sys.exit("its Python is %d.%d, and 3.8 is the least" % sys.version_info[:2])
folder, scripts = json.loads(sys.stdin.readline())
os.makedirs(folder, exist_ok=True)
for name, text in scripts.items():
    new = os.path.join(folder, "." + name + str(os.getpid()))
    with open(new, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(new, os.path.join(folder, name))
sys.exit(subprocess.call([sys.executable, os.path.join(folder, "device_facts.py")]))
"""
# In one line and with no quote in it, so that every login shell takes it alike.
READ_BOOT = "import json, sys; exec(json.loads(sys.stdin.readline()))"
HINTS = {
    "Permission denied": "Let a key log in without a password: ssh-copy-id {address}",
    "Host key verification failed": "Accept its key by logging in once by hand: ssh {address}",
    "Could not resolve": "See that the name is right, or use its IP address.",
}
HINT = "See that it is on, in this network, and runs an ssh server."


class SshDevice(RunnerDevice):
    """See `Device`.

    Args:
        name: as the user wrote it.
        address: "user@host", or a host of ~/.ssh/config.
        port: "" for ssh's own choice.
        python: the program there: a command, or a path, absolute or from the home directory.
        threads: see `Device`.
    """

    folder = FOLDER
    copies = True
    pauses = (2.0, 10.0, 30.0)  # a board takes half a minute to start

    def __init__(self, name: str, address: str, port: str, python: str, threads: int) -> None:
        super().__init__(name, threads)
        self.address, self.port, self.python = address, port, python
        self.scripts = {path.name: path.read_text(encoding="utf-8") for path in SCRIPTS}
        # Another version of edgewise may use the same device.
        version = hashlib.sha256(json.dumps(self.scripts).encode()).hexdigest()[:12]
        self.scripts_folder = f"{FOLDER}/scripts-{version}"

    @classmethod
    def parse(cls, text: str, threads: int) -> SshDevice:
        """A device from what follows "ssh:".

        Raises:
            UsageError: it is not written like that.
        """
        address, _, option = text.partition(",")
        what, _, python = option.partition("=")
        match = ADDRESS.fullmatch(address)
        if not match or (option and (what != "python" or not python)):
            raise UsageError(f"can't read the device 'ssh:{text}': it is written {EXAMPLE}.")
        host = match[1].replace("[", "").replace("]", "")  # brackets set an IPv6 address off
        # A shell would look for a word without a slash among its commands.
        python = f"./{python[2:]}" if python.startswith("~/") else python or "python3"
        return cls(f"ssh:{text}", host, match[2] or "", python, threads)

    def ask_facts(self) -> Said:
        """See `RunnerDevice`; brings the scripts there."""
        sent = [json.dumps(what) for what in (BOOT, (self.scripts_folder, self.scripts))]
        try:
            return ask(self._ssh("-c", READ_BOOT), "\n".join([*sent, ""]).encode())
        except RunnerEnded as ended:
            raise self._unreachable(ended) from None

    def command(self) -> list[str]:
        """See `RunnerDevice`."""
        return self._ssh(f"{self.scripts_folder}/{RUNNER.name}")

    def _ssh(self, *arguments: str) -> list[str]:
        if not (ssh := shutil.which("ssh")):
            raise UsageError(f"{self.name} needs the program ssh. Install OpenSSH's client.")
        options = [word for option in OPTIONS for word in ("-o", option)]
        port = ["-p", self.port] if self.port else []
        there = shlex.join([self.python, *arguments])
        return [ssh, "-T", *options, *port, "--", self.address, f"exec {there}"]

    def _unreachable(self, ended: RunnerEnded) -> EdgewiseError:
        if ended.status == GONE:
            by_words = (hint for words, hint in HINTS.items() if words in ended.words)
            hint = next(by_words, HINT).format(address=self.address)
            said = ended.words.rstrip(".")  # OpenSSH ends some of its lines with one
            return EdgewiseError(f"can't reach {self.name}: {said}. {hint}")
        if ended.status == NO_COMMAND:
            return EdgewiseError(
                f"{self.name} has no {self.python} ({ended.words}). Install Python 3.8 or newer "
                f"there, or say where it is: {self.name.partition(',')[0]},python=PATH"
            )
        return EdgewiseError(f"{self.name} can't time files: {ended.words}")

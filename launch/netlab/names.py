"""How the hosts of a lab are called, and how a program comes to run on one."""

import secrets
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from iproute import program

INTERFACE = "eth0"
PREFIX = "netlab-"
MOST_HOSTS = 250

# Each host has its own name and its own /dev/shm: shared memory would be a wire that no rate limits.
_ENTER = 'echo "$0" > /proc/sys/kernel/hostname && mount -t tmpfs -o mode=1777 netlab /dev/shm && exec "$@"'


@dataclass(frozen=True)
class Names:
    """The names of one lab; they depend on its identifier alone, so that whoever knows it can clean up."""

    lab: str
    hosts: int

    @classmethod
    def new(cls, hosts: int) -> "Names":
        return cls(secrets.token_hex(4), hosts)

    @property
    def hub(self) -> str:
        """The namespace of the switch."""
        return f"{PREFIX}{self.lab}-hub"

    def namespace(self, host: int) -> str:
        return f"{PREFIX}{self.lab}-{host}"

    @property
    def namespaces(self) -> list[str]:
        return [*(self.namespace(host) for host in range(self.hosts)), self.hub]

    @staticmethod
    def host(host: int) -> str:
        """The name that the hosts know each other by."""
        return f"host{host}"

    @staticmethod
    def address(host: int) -> str:
        return f"10.77.0.{host + 1}"

    def entering(self, host: int, command: Sequence[str]) -> list[str]:
        """The command line that runs a command on a host; it is replaced by the command, so their process is one."""
        into = [program("ip"), "netns", "exec", self.namespace(host), program("unshare"), "--uts", "--ipc"]
        return [*into, "sh", "-c", _ENTER, self.host(host), *command]

    def popen(self, host: int, command: Sequence[str], **how: object) -> "subprocess.Popen[bytes]":
        """Starts a command on a host."""
        return subprocess.Popen(self.entering(host, command), **how)  # type: ignore[call-overload,no-any-return]

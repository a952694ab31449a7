"""A lab: hosts in network namespaces, each on one shaped link to a switch, itself in a namespace of its own.

Without latency, jitter, loss and cuts the switch is a kernel bridge, and tbf shapes both ends of each link: what leaves
the host, and what leaves the switch toward it. With any of them the switch is `router.py`, which joins TUN devices.
"""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

import iproute
import registry
from faults import LabError, ignore_signals
from link import Link
from names import INTERFACE, Names

PROGRAM = Path(__file__).parent
PORT = 29400

_FRAME_BYTES = 1514
_BURST_S = 400e-6  # what a link may send at once after a pause, as time at its rate
_QUEUE_S = 50e-3  # what may wait in front of a link
_ROUTED_BURST_S = 2e-3
_ROUTED_SHARE = 0.99  # of the rate: the sender's own queue must be the one that fills, not the router's


class Lab:
    """Context manager: builds on entry, and takes down whatever stands on exit.

    Raises:
        LabError: on entry, where this machine cannot make it.
    """

    def __init__(self, hosts: int, link: Link) -> None:
        self.names, self.link = Names.new(hosts), link
        self.router: subprocess.Popen[str] | None = None

    def __enter__(self) -> "Lab":
        iproute.require(self.link.routed)
        registry.clean()
        registry.claim(self.names)
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._remove()

    def begin(self) -> None:
        """The time that cuts are counted from."""
        if self.router is not None:
            assert self.router.stdin is not None
            self.router.stdin.write("begin\n")
            self.router.stdin.flush()

    def environment(self, host: int) -> dict[str, str]:
        """What a program on a host is told."""
        names = self.names
        addresses = {f"NETLAB_ADDRESS_{other}": names.address(other) for other in range(names.hosts)}
        return addresses | {
            "NETLAB": names.lab,
            "NETLAB_HOST": str(host),
            "NETLAB_HOSTS": str(names.hosts),
            "NETLAB_LINK": json.dumps(self.link.as_dict(names.hosts)),
            "GLOO_SOCKET_IFNAME": INTERFACE,
            "NCCL_SOCKET_IFNAME": INTERFACE,
        }

    def ranks(self, host: int) -> dict[str, str]:
        """Makes the program on a host a rank, as torchrun's variables do."""
        size, meeting = str(self.names.hosts), {"MASTER_ADDR": self.names.address(0), "MASTER_PORT": str(PORT)}
        return meeting | {"RANK": str(host), "WORLD_SIZE": size, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}

    def _build(self) -> None:
        names = self.names
        for namespace in names.namespaces:
            iproute.ip("netns", "add", namespace)
        self._name_hosts()
        if self.link.routed:
            self._start_router()
        else:
            iproute.batch(names.hub, ["link add br0 type bridge", "link set br0 up", "link set lo up"])
        for host in range(names.hosts):
            if not self.link.routed:
                self._plug(host)
            self._configure(host)
            self._shape(host)

    def _remove(self) -> None:
        ignore_signals()
        registry.remove(self.names)
        if self.router is not None:
            self.router.communicate()

    def _name_hosts(self) -> None:
        # torch looks up who has a mapped address, and complains where nobody has. That name is another one, so that
        # whoever asks for a host's address gets the plain form.
        hosts = [(self.names.address(host), self.names.host(host)) for host in range(self.names.hosts)]
        lines = [line for address, name in hosts for line in (f"{address} {name}", f"::ffff:{address} {name}.mapped")]
        text = "\n".join(["127.0.0.1 localhost", *lines]) + "\n"
        try:
            for host in range(self.names.hosts):
                folder = registry.NETNS_ETC / self.names.namespace(host)
                folder.mkdir(parents=True)
                (folder / "hosts").write_text(text)
        except OSError as error:
            raise LabError(f"cannot write {error.filename} ({error.strerror}); hosts are named there") from error

    def _start_router(self) -> None:
        settings = {"namespaces": self.names.namespaces[:-1], "link": asdict(self.link)}
        into = [
            iproute.program("ip"),
            "netns",
            "exec",
            self.names.hub,
            sys.executable,
            str(PROGRAM),
            "router",
            json.dumps(settings),
        ]
        self.router = subprocess.Popen(
            into, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert self.router.stdout is not None
        if self.router.stdout.readline() != "ready\n":
            raise LabError("the router could not make its TUN devices; it said why above")

    def _plug(self, host: int) -> None:
        peer = f"peer name {INTERFACE} netns {self.names.namespace(host)}"
        lines = [f"link add port{host} type veth {peer}", f"link set port{host} master br0 up"]
        iproute.batch(self.names.hub, lines)

    def _configure(self, host: int) -> None:
        """Address and route; cubic where the kernel lets a route choose, since bbr (often the default) is erratic."""
        namespace, address = self.names.namespace(host), self.names.address(host)
        up = ["link set lo up", f"addr add {address}/24 dev {INTERFACE}", f"link set {INTERFACE} up"]
        iproute.batch(namespace, up)
        route = ["route", "replace", "10.77.0.0/24", "dev", INTERFACE, "src", address]
        try:
            iproute.ip(*route, "congctl", "cubic", namespace=namespace)
        except LabError:
            iproute.ip(*route, namespace=namespace)

    def _shape(self, host: int) -> None:
        rate = self.link.rate_bit_s
        if rate is None:
            return
        namespace = self.names.namespace(host)
        queue = max(int(_QUEUE_S * rate / 8), 40 * _FRAME_BYTES)
        if self.link.routed:
            # Room for a whole segment of the kernel's offload; the router's own clock smooths it again.
            burst = max(int(_ROUTED_BURST_S * rate / 8), 11 * _FRAME_BYTES)
            iproute.shape(namespace, INTERFACE, _ROUTED_SHARE * rate, burst, burst + queue)
            return
        burst = max(int(_BURST_S * rate / 8), 3 * _FRAME_BYTES)
        iproute.shape(namespace, INTERFACE, rate, burst, burst + queue)
        iproute.shape(self.names.hub, f"port{host}", rate, burst, burst + queue)

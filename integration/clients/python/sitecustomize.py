"""What an entry in the hosts file would do, for one process: the names in LEAD_NAMES
are at LEAD_TO (host:port). Python loads this at its start when PYTHONPATH says so,
so that the programs need not know of it."""

import os
import socket

_names = set(filter(None, os.environ.get("LEAD_NAMES", "").split(",")))
_host, _, _port = os.environ.get("LEAD_TO", "").partition(":")
_getaddrinfo = socket.getaddrinfo


def _led(host, port, *args, **kwargs):
    if host in _names:
        host, port = _host, int(_port)
    return _getaddrinfo(host, port, *args, **kwargs)


socket.getaddrinfo = _led

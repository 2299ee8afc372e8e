"""Ports that are chosen for servers stay theirs until they listen, and while they are down."""

import errno
import socket

import pytest

from coterie.processes import ProcessError, _require_free, free_ports


def test_a_chosen_port_is_had_by_its_number_and_by_nobody_by_chance() -> None:
    ports = free_ports(3)
    assert len({*ports, *free_ports(3)}) == 6
    for port in ports:
        with socket.socket() as anybody, pytest.raises(OSError, match="in use") as refused:
            anybody.bind(("127.0.0.1", port))
        assert refused.value.errno == errno.EADDRINUSE
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        for _ in range(2):
            _require_free("north", "127.0.0.1", port)
            with socket.create_server(("127.0.0.1", port)):
                socket.create_connection(("127.0.0.1", port)).close()
                with pytest.raises(ProcessError, match="can't listen"):
                    _require_free("east", "127.0.0.1", port)

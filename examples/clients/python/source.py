#!/usr/bin/env python3
"""An event source: python3 source.py [OPTIONS] NAME HOST:PORT [HOST:PORT...] < EVENTS

Standard input has one event a line, without its number: `B`, `P|32|56`. The first line gets number FIRST (1), the next
one FIRST + 1, and so on. Every event is kept until the server has acknowledged it. After any failure the program
connects again, to the next address, and goes on from the first number that is not acknowledged. Started again with the
same input, it goes on there as well. It ends with exit status 0 when everything is acknowledged. Options:

  --first N          number of the first line
  --timeout SECONDS  connects again when something is unacknowledged and no answer came for so long (90); 0: never
  --tls              speaks TLS, and trusts the authorities of the system
  --ca FILE          speaks TLS, and trusts the authorities in this PEM file instead

See docs/SPEC.md, section 9. It needs nothing but Python.
"""

import argparse
import os
import random
import select
import socket
import ssl
import sys
import time

KEPT_MAX = 100_000  # events that are kept at once; standard input is not read above
LINES_AT_ONCE = 1000
PENDING_BYTES = 1 << 16  # while fewer bytes wait to be sent, more lines are added
ANSWER_SECONDS = 10  # limit for connecting and for the first answer
# A quiet peer is asked after a minute whether it is there, then every 10 seconds. It is given up after two minutes.
KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6}


class Input:
    """Numbers the lines of standard input and keeps those that are not acknowledged."""

    def __init__(self, first):
        self.kept = []  # lines from number `low` on
        self.low = first
        self.half = b""
        self.ended = False

    def end(self):
        """The number of the next line."""
        return self.low + len(self.kept)

    def wants_more(self):
        return not self.ended and len(self.kept) < KEPT_MAX

    def read(self):
        try:
            data = os.read(0, 1 << 16)
        except OSError as error:
            sys.exit(f"Standard input cannot be read: {error}.")
        *lines, self.half = (self.half + data).split(b"\n")
        if not data:
            self.ended = True
            lines += [self.half] if self.half else []
        for line in lines:
            self.kept.append(b"%d|%s\n" % (self.end(), line.rstrip(b"\r")))

    def forget_below(self, number):
        count = max(0, min(number - self.low, len(self.kept)))
        del self.kept[:count]
        self.low += count

    def lines(self, start, count):
        """At most `count` lines from number `start` on."""
        return self.kept[start - self.low : start - self.low + count]


class Source:
    """What must outlive a connection."""

    def __init__(self, name, first, timeout):
        self.name = name
        self.timeout = timeout
        self.input = Input(first)
        self.epoch = None
        self.acknowledged = 0  # every number below is dealt with

    def serve(self, sock):
        """Sends what is not acknowledged. Returns when everything is; raises OSError when the connection fails."""
        pending = b"?|ack|%s\n" % self.name
        half = b""
        answered = False
        sent_below = 0
        heard = time.monotonic()  # since when an answer is due
        while True:
            self.input.forget_below(self.acknowledged)
            if answered and self.input.ended and not self.input.kept:
                return
            if answered and sent_below <= self.input.low:
                heard = time.monotonic()  # nothing is unacknowledged
            if answered and len(pending) < PENDING_BYTES:
                sent_below = max(sent_below, self.input.low)
                lines = self.input.lines(sent_below, LINES_AT_ONCE)
                pending += b"".join(lines)
                sent_below += len(lines)
            limit = self.timeout if answered else ANSWER_SECONDS
            owed = limit > 0 and (not answered or sent_below > self.input.low)
            left = heard + limit - time.monotonic() if owed else None
            if owed and left <= 0:
                raise TimeoutError("no answer")
            sources = [sock, 0] if self.input.wants_more() else [sock]
            readable, writable, _ = select.select(sources, [sock] if pending else [], [], left)
            if 0 in readable:
                self.input.read()
            if sock in readable and (data := receive(sock)):
                heard = time.monotonic()
                *lines, half = (half + data).split(b"\n")
                for line in lines:
                    self.acknowledge(line.rstrip(b"\r").decode())
                    answered = True
            if sock in writable:
                pending = pending[send(sock, pending) :]

    def acknowledge(self, line):
        sign, epoch, number = line.split("|")
        number = int(number)
        if sign != "+":
            raise ValueError(f"unexpected answer {line!r}")
        if self.epoch not in (None, epoch) or number < self.acknowledged:
            sys.exit(
                f"The server has lost its past: epoch {self.epoch}, number {self.acknowledged} became "
                f"epoch {epoch}, number {number}. A person must decide what to send again."
            )
        self.epoch, self.acknowledged = epoch, number


NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def receive(sock):
    """What has come. Empty: half a record of TLS."""
    try:
        data = sock.recv(1 << 16)
    except NOT_NOW:
        return b""
    if not data:
        raise ConnectionError("the server has closed the connection")
    return data


def send(sock, data):
    """How much of it has been sent."""
    try:
        return sock.send(data)
    except NOT_NOW:
        return 0


def tls_context(options):
    """None: in clear."""
    try:
        return ssl.create_default_context(cafile=options.ca) if options.tls or options.ca else None
    except OSError as error:
        sys.exit(f"--ca {options.ca}: {error}")


def connect(address, tls):
    host, port = address.rsplit(":", 1)
    host = host.strip("[]")
    sock = socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):  # not everywhere
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if tls:
        sock = tls.wrap_socket(sock, server_hostname=host)
    return sock


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=90)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--ca")
    parser.add_argument("name")
    parser.add_argument("address", nargs="+")
    return parser.parse_args()


def main():
    options = parse()
    tls = tls_context(options)
    source = Source(options.name.encode("ascii"), options.first, options.timeout)
    pause = 0.1
    for attempt in range(sys.maxsize):
        address = options.address[attempt % len(options.address)]
        before = source.acknowledged
        try:
            with connect(address, tls) as sock:
                sock.setblocking(False)
                source.serve(sock)
                return
        except (OSError, ValueError) as error:
            print(f"{address}: {error}; trying again", file=sys.stderr)
        pause = 0.1 if source.acknowledged > before else min(2 * pause, 5)
        time.sleep(pause * random.uniform(0.5, 1))


if __name__ == "__main__":
    main()

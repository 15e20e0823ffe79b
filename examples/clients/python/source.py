#!/usr/bin/env python3
"""An event source: python3 source.py [--first N] NAME HOST:PORT [HOST:PORT...] < EVENTS

Standard input has one event a line, without its number: `B`, `P|32|56`. The first line gets number FIRST (1), the next
one FIRST + 1, and so on. Every event is kept until the server has acknowledged it. After any failure the program
connects again, to the next address, and goes on from the first number that is not acknowledged. Started again with the
same input, it goes on there as well. It ends with exit status 0 when everything is acknowledged.

See docs/SPEC.md, section 9. It needs nothing but Python.
"""

import os
import random
import select
import socket
import sys
import time

KEPT_MAX = 100_000  # events that are kept at once; standard input is not read above
LINES_AT_ONCE = 1000
PENDING_BYTES = 1 << 16  # while fewer bytes wait to be sent, more lines are added
ANSWER_SECONDS = 10  # limit for connecting and for the first answer


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
        data = os.read(0, 1 << 16)
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

    def __init__(self, name, first):
        self.name = name
        self.input = Input(first)
        self.epoch = None
        self.acknowledged = 0  # every number below is dealt with

    def serve(self, sock):
        """Sends what is not acknowledged. Returns when everything is; raises OSError when the connection fails."""
        sock.sendall(b"?|ack|%s\n" % self.name)
        half = b""
        answered = False
        sent_below = 0
        pending = b""
        while True:
            self.input.forget_below(self.acknowledged)
            if answered and self.input.ended and not self.input.kept:
                return
            if answered and len(pending) < PENDING_BYTES:
                sent_below = max(sent_below, self.input.low)
                lines = self.input.lines(sent_below, LINES_AT_ONCE)
                pending += b"".join(lines)
                sent_below += len(lines)
            sources = [sock, 0] if self.input.wants_more() else [sock]
            readable, writable, _ = select.select(
                sources, [sock] if pending else [], [], None if answered else ANSWER_SECONDS
            )
            if not readable and not writable:
                raise TimeoutError("no answer to ?|ack")
            if 0 in readable:
                self.input.read()
            if sock in readable:
                data = sock.recv(1 << 16)
                if not data:
                    raise ConnectionError("the server has closed the connection")
                *lines, half = (half + data).split(b"\n")
                for line in lines:
                    self.acknowledge(line.rstrip(b"\r").decode())
                    answered = True
            if sock in writable:
                pending = pending[sock.send(pending) :]

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


def connect(address):
    host, port = address.rsplit(":", 1)
    sock = socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setblocking(False)
    return sock


def main():
    arguments = sys.argv[1:]
    first = 1
    if arguments[:1] == ["--first"]:
        first = int(arguments[1])
        arguments = arguments[2:]
    if len(arguments) < 2:
        sys.exit(__doc__)
    name, *addresses = arguments
    source = Source(name.encode("ascii"), first)
    pause = 0.1
    for attempt in range(sys.maxsize):
        address = addresses[attempt % len(addresses)]
        before = source.acknowledged
        try:
            with connect(address) as sock:
                source.serve(sock)
                return
        except (OSError, ValueError) as error:
            print(f"{address}: {error}; trying again", file=sys.stderr)
        pause = 0.1 if source.acknowledged > before else min(2 * pause, 5)
        time.sleep(pause * random.uniform(0.5, 1))


if __name__ == "__main__":
    main()

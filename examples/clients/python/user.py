#!/usr/bin/env python3
"""A user: python3 user.py [OPTIONS] ID HOST:PORT [HOST:PORT...]

Writes the user's events to standard output, each exactly once. After any failure it connects again, to the next
address, and goes on behind the last whole event. Options:

  --plain            logs in with the id alone: events from now on, and what comes while it is away is missed
  --state FILE       keeps the place in FILE, so that the next start goes on there
  --from WHERE       without a place: `now` (default), or `oldest`, which is everything that is kept
  --continue         when the server no longer has what is missing: say so and go on, instead of ending with status 1
  --timeout SECONDS  connects again when nothing came for so long (90); above `userMarkMs` of the server; 0: never
  --tls              speaks TLS, and trusts the authorities of the system
  --ca FILE          speaks TLS, and trusts the authorities in this PEM file instead
  --token TOKEN      JSON Web Token, where the server asks for one

See docs/SPEC.md, section 10. It needs nothing but Python.
"""

import argparse
import os
import random
import re
import socket
import ssl
import sys
import time

ANSWER_SECONDS = 10  # limit for connecting and for the answer to the login
# A quiet peer is asked after a minute whether it is there, then every 10 seconds. It is given up after two minutes.
KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6}
# Why a server closes a connection for good: another client has this id, or the token is over.
FINAL = ("replaced", "token_expired")


class Place:
    """The next number that is wanted, and the epoch that it belongs to."""

    def __init__(self, file):
        self.file = file
        self.next = self.epoch = None
        if file:
            self.load()

    def load(self):
        """Only a file that is not there means that there is no place. What else fails must not be taken for that."""
        try:
            with open(self.file, encoding="ascii", errors="replace") as lines:
                stored = re.fullmatch(r"([0-9]+) ([^\s|]+)\n?", lines.read())
        except FileNotFoundError:
            return
        except OSError as error:
            sys.exit(f"The state file {self.file} cannot be read: {error.strerror}.")
        if not stored:
            sys.exit(f"The state file {self.file} is damaged: it does not hold a number and an epoch.")
        self.next, self.epoch = int(stored[1]), stored[2]

    def start(self, number, epoch):
        """The answer to a login, a mark, or a new run. A mark may lie below what has come: it names durable places."""
        self.next = max(self.next, number) if self.epoch == epoch else number
        self.epoch = epoch

    def save(self):
        """Called when everything below it has been written out."""
        if self.file and self.epoch:
            with open(self.file + ".new", "w", encoding="ascii") as out:
                out.write(f"{self.next} {self.epoch}\n")
            os.replace(self.file + ".new", self.file)


class User:
    def __init__(self, options):
        self.options = options
        self.place = Place(options.state)

    def login(self):
        place = self.place
        fields = [self.options.id]
        if not self.options.plain:
            fields += [str(place.next), place.epoch] if place.epoch else [self.options.where]
        fields += [self.options.token] if self.options.token else []
        return ("|".join(fields) + "\n").encode("ascii")

    def serve(self, sock):
        """Reads events until the connection ends."""
        sock.sendall(self.login())
        if self.options.plain:
            sock.settimeout(None)  # a plain login is not answered, and sent no marks
        half = b""  # of a line; it is dropped with the connection, and sent again whole
        while True:
            data = sock.recv(1 << 16)
            if not data:
                raise ConnectionError("the server has closed the connection")
            *lines, half = (half + data).split(b"\n")
            out = []
            try:
                for line in lines:
                    if line[:1] == b"+":
                        _, epoch, number = line.decode("ascii").rstrip("\r").split("|")
                        self.place.start(int(number), epoch)
                        sock.settimeout(self.options.timeout or None)
                    elif line[:1] == b"-":
                        self.refused(line.decode("ascii").rstrip("\r"))
                    else:
                        self.place.next = int(line[: line.index(b"|")]) + 1
                        out.append(line + b"\n")
            finally:
                self.write(out)

    def write(self, lines):
        try:
            if lines:
                sys.stdout.buffer.write(b"".join(lines))
                sys.stdout.buffer.flush()
            self.place.save()
        except OSError as error:
            sys.exit(f"The events or the place cannot be written: {error}.")

    def refused(self, line):
        """`-|EPOCH|NUMBER|REASON`: the server ends this connection. `gone` and `epoch` refuse a login."""
        _, epoch, number, reason = line.split("|")
        if reason in ("gone", "epoch"):
            have = f"number {self.place.next} of epoch {self.place.epoch}"
            if not self.options.go_on:
                sys.exit(f"The server cannot go on at {have}. It offers number {number} of epoch {epoch} ({reason}).")
            print(f"Going on at number {number} of epoch {epoch} instead of {have} ({reason}).", file=sys.stderr)
            self.place.next, self.place.epoch = int(number), epoch
        elif reason in FINAL:
            sys.exit(f"The server has ended this connection for good: {reason}.")
        raise ConnectionError(f"the server has ended the connection: {reason}")


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
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--state")
    parser.add_argument("--from", dest="where", choices=["now", "oldest"], default="now")
    parser.add_argument("--continue", dest="go_on", action="store_true")
    parser.add_argument("--timeout", type=float, default=90)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--ca")
    parser.add_argument("--token")
    parser.add_argument("id")
    parser.add_argument("address", nargs="+")
    return parser.parse_args()


def main():
    options = parse()
    tls = tls_context(options)
    user = User(options)
    pause = 0.1
    for attempt in range(sys.maxsize):
        address = options.address[attempt % len(options.address)]
        before = (user.place.next, user.place.epoch)
        try:
            with connect(address, tls) as sock:
                user.serve(sock)
        except (OSError, ValueError) as error:
            print(f"{address}: {error}; trying again", file=sys.stderr)
        pause = 0.1 if (user.place.next, user.place.epoch) != before else min(2 * pause, 5)
        time.sleep(pause * random.uniform(0.5, 1))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""A user: python3 user.py [OPTIONS] ID HOST:PORT [HOST:PORT...]

Writes the user's events to standard output, each exactly once. After any failure it connects again, to the next
address, and goes on behind the last whole event. Options:

  --plain        logs in with the id alone: events from now on, and what comes while it is away is missed
  --state FILE   keeps the place in FILE, so that the next start goes on there
  --from WHERE   without a place: `now` (default), or `oldest`, which is everything that is kept
  --continue     when the server no longer has what is missing: say so and go on, instead of ending with status 1
  --token TOKEN  JSON Web Token, where the server asks for one

See docs/SPEC.md, section 10. It needs nothing but Python.
"""

import argparse
import os
import random
import socket
import sys
import time

ANSWER_SECONDS = 10  # limit for connecting and for the answer to the login
# Why a server closes a connection for good: another client has this id.
FINAL = ("replaced",)


class Place:
    """The next number that is wanted, and the epoch that it belongs to."""

    def __init__(self, file):
        self.file = file
        self.next = self.epoch = None
        if file and os.path.exists(file):
            with open(file, encoding="ascii") as lines:
                number, self.epoch = lines.read().split()
            self.next = int(number)

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
            sock.settimeout(None)  # a plain login is not answered
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
                        sock.settimeout(None)
                    elif line[:1] == b"-":
                        self.refused(line.decode("ascii").rstrip("\r"))
                    else:
                        self.place.next = int(line[: line.index(b"|")]) + 1
                        out.append(line + b"\n")
            finally:
                self.write(out)

    def write(self, lines):
        if lines:
            sys.stdout.buffer.write(b"".join(lines))
            sys.stdout.buffer.flush()
        self.place.save()

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


def connect(address):
    host, port = address.rsplit(":", 1)
    sock = socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--state")
    parser.add_argument("--from", dest="where", choices=["now", "oldest"], default="now")
    parser.add_argument("--continue", dest="go_on", action="store_true")
    parser.add_argument("--token")
    parser.add_argument("id")
    parser.add_argument("address", nargs="+")
    options = parser.parse_args()
    user = User(options)
    pause = 0.1
    for attempt in range(sys.maxsize):
        address = options.address[attempt % len(options.address)]
        before = (user.place.next, user.place.epoch)
        try:
            with connect(address) as sock:
                user.serve(sock)
        except (OSError, ValueError) as error:
            print(f"{address}: {error}; trying again", file=sys.stderr)
        pause = 0.1 if (user.place.next, user.place.epoch) != before else min(2 * pause, 5)
        time.sleep(pause * random.uniform(0.5, 1))


if __name__ == "__main__":
    main()

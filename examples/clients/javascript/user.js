#!/usr/bin/env node
// A user: node user.js [OPTIONS] ID HOST:PORT [HOST:PORT...]
//
// Writes the user's events to standard output, each exactly once. After any failure it connects again, to the next
// address, and goes on behind the last whole event. Options:
//
//   --plain        logs in with the id alone: events from now on, and what comes while it is away is missed
//   --state FILE   keeps the place in FILE, so that the next start goes on there
//   --from WHERE   without a place: `now` (default), or `oldest`, which is everything that is kept
//   --continue     when the server no longer has what is missing: say so and go on, instead of ending with status 1
//   --token TOKEN  JSON Web Token, where the server asks for one
//
// See docs/SPEC.md, section 10. It needs nothing but Node.
'use strict';
const fs = require('node:fs');
const net = require('node:net');
const { parseArgs } = require('node:util');

const ANSWER_MS = 10_000; // limit for connecting and for the answer to the login

/** The next number that is wanted, and the epoch that it belongs to. */
class Place {
  constructor(file) {
    this.file = file;
    this.next = 0n;
    this.epoch = null;
    if (file && fs.existsSync(file)) {
      const [next, epoch] = fs.readFileSync(file, 'ascii').trim().split(' ');
      this.next = BigInt(next);
      this.epoch = epoch;
    }
  }

  /** The answer to a login, a mark, or a new run. A mark may lie below what has come: it names durable places. */
  start(number, epoch) {
    if (epoch !== this.epoch || number > this.next) this.next = number;
    this.epoch = epoch;
  }

  /** Called when everything below it has been written out. */
  save() {
    if (!this.file || this.epoch === null) return;
    fs.writeFileSync(`${this.file}.new`, `${this.next} ${this.epoch}\n`);
    fs.renameSync(`${this.file}.new`, this.file);
  }

  toString() {
    return `number ${this.next} of epoch ${this.epoch}`;
  }
}

/** What belongs to one connection. */
class Connection {
  constructor(address, options, place, over) {
    const { host, port } = parse(address);
    this.options = options;
    this.place = place;
    this.half = ''; // of a line; it is dropped with the connection, and sent again whole
    this.error = 'the server has closed the connection';
    this.socket = net.connect({ host, port, keepAlive: true });
    this.socket.setEncoding('latin1'); // bytes, unchanged
    this.socket.setTimeout(ANSWER_MS, () => this.socket.destroy(new Error('no answer')));
    this.socket.on('connect', () => {
      this.socket.write(this.login());
      if (options.plain) this.socket.setTimeout(0); // a plain login is not answered
    });
    this.socket.on('data', (data) => this.read(data));
    this.socket.on('error', (error) => (this.error = error.message));
    this.socket.on('end', () => this.socket.destroy());
    this.socket.on('close', () => over(this.error));
  }

  login() {
    const { place, options } = this;
    const fields = [options.id];
    if (!options.plain && place.epoch === null) fields.push(options.from);
    else if (!options.plain) fields.push(place.next, place.epoch);
    if (options.token) fields.push(options.token);
    return `${fields.join('|')}\n`;
  }

  read(data) {
    const lines = (this.half + data).split('\n');
    this.half = lines.pop();
    let out = '';
    for (const line of lines) {
      if (line[0] === '+') {
        const [, epoch, number] = line.trimEnd().split('|');
        this.place.start(BigInt(number), epoch);
        this.socket.setTimeout(0);
      } else if (line[0] === '-') {
        this.write(out);
        this.refused(line.trimEnd());
        return;
      } else {
        this.place.next = BigInt(line.slice(0, line.indexOf('|'))) + 1n;
        out += `${line}\n`;
      }
    }
    this.write(out);
  }

  write(out) {
    let bytes = Buffer.from(out, 'latin1');
    while (bytes.length > 0) bytes = bytes.subarray(fs.writeSync(1, bytes));
    this.place.save();
  }

  /** `-|EPOCH|NUMBER|REASON`: the server ends this connection. `gone` and `epoch` refuse a login. */
  refused(line) {
    const [, epoch, number, reason] = line.split('|');
    if (reason === 'gone' || reason === 'epoch') {
      const offer = `number ${number} of epoch ${epoch}`;
      if (!this.options.continue) stop(`The server cannot go on at ${this.place}. It offers ${offer} (${reason}).`);
      console.error(`Going on at ${offer} instead of ${this.place} (${reason}).`);
      this.place.next = BigInt(number);
      this.place.epoch = epoch;
    } else if (reason === 'replaced') {
      // Another client has this id. To come back would start a fight.
      stop('The server has ended this connection for good: replaced.');
    }
    this.error = `the server has ended the connection: ${reason}`;
    this.socket.destroy();
  }
}

function stop(sentence) {
  console.error(sentence);
  process.exit(1);
}

function parse(address) {
  const colon = address.lastIndexOf(':');
  return { host: address.slice(0, colon).replace(/^\[|\]$/g, ''), port: Number(address.slice(colon + 1)) };
}

function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      plain: { type: 'boolean' },
      state: { type: 'string' },
      from: { type: 'string', default: 'now' },
      continue: { type: 'boolean' },
      token: { type: 'string' },
    },
  });
  const [id, ...addresses] = positionals;
  if (addresses.length === 0) stop('usage: user.js [OPTIONS] ID HOST:PORT [HOST:PORT...]');
  const place = new Place(values.state);
  let pause = 100;
  const attempt = (index) => {
    const address = addresses[index % addresses.length];
    const before = String(place);
    new Connection(address, { ...values, id }, place, (error) => {
      console.error(`${address}: ${error}; trying again`);
      pause = String(place) === before ? Math.min(2 * pause, 5000) : 100;
      setTimeout(attempt, pause * (0.5 + Math.random() / 2), index + 1);
    });
  };
  attempt(0);
}

main();

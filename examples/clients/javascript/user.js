#!/usr/bin/env node
// A user: node user.js [OPTIONS] ID HOST:PORT [HOST:PORT...]
//
// Writes the user's events to standard output, each exactly once. After any failure it connects again, to the next
// address, and goes on behind the last whole event. Options:
//
//   --plain            logs in with the id alone: events from now on, and what comes while it is away is missed
//   --state FILE       keeps the place in FILE, so that the next start goes on there
//   --from WHERE       without a place: `now` (default), or `oldest`, which is everything that is kept
//   --continue         when the server no longer has what is missing: say so and go on, instead of ending with status 1
//   --timeout SECONDS  connects again when nothing came for so long (90); above `userMarkMs` of the server; 0: never
//   --tls              speaks TLS, and trusts the authorities of Node
//   --ca FILE          speaks TLS, and trusts the authorities in this PEM file instead
//   --token TOKEN      JSON Web Token, where the server asks for one
//
// See docs/SPEC.md, section 10. It needs nothing but Node.
'use strict';
const fs = require('node:fs');
const net = require('node:net');
const tls = require('node:tls');
const { parseArgs } = require('node:util');

const ANSWER_MS = 10_000; // limit for connecting and for the answer to the login
const KEEPALIVE_MS = 60_000; // then a quiet peer is asked whether it is there
// Why a server closes a connection for good: another client has this id, or the token is over.
const FINAL = ['replaced', 'token_expired'];

/** The next number that is wanted, and the epoch that it belongs to. */
class Place {
  constructor(file) {
    this.file = file;
    this.next = 0n;
    this.epoch = null;
    if (file) this.load();
  }

  /** Only a file that is not there means that there is no place. What else fails must not be taken for that. */
  load() {
    let text;
    try {
      text = fs.readFileSync(this.file, 'latin1');
    } catch (error) {
      if (error.code === 'ENOENT') return;
      stop(`The state file ${this.file} cannot be read: ${error.message}.`);
    }
    const stored = text.match(/^([0-9]+) ([^\s|]+)\n?$/);
    if (!stored) stop(`The state file ${this.file} is damaged: it does not hold a number and an epoch.`);
    this.next = BigInt(stored[1]);
    this.epoch = stored[2];
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
    this.options = options;
    this.place = place;
    this.half = ''; // of a line; it is dropped with the connection, and sent again whole
    this.error = 'the server has closed the connection';
    this.socket = connect(address, options);
    this.socket.setEncoding('latin1'); // bytes, unchanged
    this.socket.setTimeout(ANSWER_MS, () => this.socket.destroy(new Error('no answer')));
    this.socket.on(options.tls ? 'secureConnect' : 'connect', () => {
      this.socket.setKeepAlive(true, KEEPALIVE_MS);
      this.socket.write(this.login());
      if (options.plain) this.socket.setTimeout(0); // a plain login is not answered, and sent no marks
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
        this.socket.setTimeout(this.options.timeout);
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
    try {
      let bytes = Buffer.from(out, 'latin1');
      while (bytes.length > 0) bytes = bytes.subarray(fs.writeSync(1, bytes));
      this.place.save();
    } catch (error) {
      stop(`The events or the place cannot be written: ${error.message}.`);
    }
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
    } else if (FINAL.includes(reason)) {
      stop(`The server has ended this connection for good: ${reason}.`);
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

function connect(address, options) {
  const target = parse(address);
  return options.tls ? tls.connect({ ...target, ca: options.ca }) : net.connect(target);
}

/** Makes the options for connections of those of the command line. */
function prepare(values) {
  const timeout = Number(values.timeout) * 1000;
  if (!(timeout >= 0)) stop('--timeout needs a number of seconds.');
  if (values.ca === undefined) return { ...values, timeout };
  try {
    const ca = fs.readFileSync(values.ca, 'latin1');
    if (!ca.includes('-----BEGIN CERTIFICATE-----')) stop(`--ca ${values.ca}: no certificate in it`);
    return { ...values, timeout, tls: true, ca };
  } catch (error) {
    return stop(`--ca ${values.ca}: ${error.message}`);
  }
}

function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      plain: { type: 'boolean' },
      state: { type: 'string' },
      from: { type: 'string', default: 'now' },
      continue: { type: 'boolean' },
      timeout: { type: 'string', default: '90' },
      tls: { type: 'boolean' },
      ca: { type: 'string' },
      token: { type: 'string' },
    },
  });
  const [id, ...addresses] = positionals;
  if (addresses.length === 0) stop('usage: user.js [OPTIONS] ID HOST:PORT [HOST:PORT...]');
  const options = { ...prepare(values), id };
  const place = new Place(options.state);
  let pause = 100;
  const attempt = (index) => {
    const address = addresses[index % addresses.length];
    const before = String(place);
    new Connection(address, options, place, (error) => {
      console.error(`${address}: ${error}; trying again`);
      pause = String(place) === before ? Math.min(2 * pause, 5000) : 100;
      setTimeout(attempt, pause * (0.5 + Math.random() / 2), index + 1);
    });
  };
  attempt(0);
}

main();

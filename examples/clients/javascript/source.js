#!/usr/bin/env node
// An event source: node source.js [OPTIONS] NAME HOST:PORT [HOST:PORT...] < EVENTS
//
// Standard input has one event a line, without its number: `B`, `P|32|56`. The first line gets number FIRST (1), the
// next one FIRST + 1, and so on. Every event is kept until the server has acknowledged it. After any failure the program
// connects again, to the next address, and goes on from the first number that is not acknowledged. Started again with
// the same input, it goes on there as well. It ends with exit status 0 when everything is acknowledged.
// Options:
//
//   --first N          number of the first line
//   --timeout SECONDS  connects again when something is unacknowledged and no answer came for so long (90); 0: never
//   --tls              speaks TLS, and trusts the authorities of Node
//   --ca FILE          speaks TLS, and trusts the authorities in this PEM file instead
//
// See docs/SPEC.md, section 9. It needs nothing but Node.
'use strict';
const fs = require('node:fs');
const net = require('node:net');
const tls = require('node:tls');
const { parseArgs } = require('node:util');

const KEPT_MAX = 100_000; // events that are kept at once; standard input is not read above
const LINES_AT_ONCE = 1000;
const ANSWER_MS = 10_000; // limit for connecting and for the first answer
const KEEPALIVE_MS = 60_000; // then a quiet peer is asked whether it is there

/** Numbers the lines of standard input and keeps those that are not acknowledged. */
class Input {
  constructor(first, changed) {
    this.kept = []; // lines from number `low` on
    this.low = first;
    this.half = '';
    this.ended = false;
    process.stdin.setEncoding('latin1'); // bytes, unchanged
    process.stdin.on('data', (data) => {
      this.add(data);
      changed();
    });
    process.stdin.on('end', () => {
      if (this.half !== '') this.add('\n');
      this.ended = true;
      changed();
    });
  }

  add(data) {
    const lines = (this.half + data).split('\n');
    this.half = lines.pop();
    for (const line of lines) this.kept.push(`${this.end()}|${line.replace(/\r$/, '')}\n`);
    if (this.kept.length >= KEPT_MAX) process.stdin.pause();
  }

  /** The number of the next line. */
  end() {
    return this.low + BigInt(this.kept.length);
  }

  forgetBelow(number) {
    const length = BigInt(this.kept.length);
    const count = number <= this.low ? 0n : number - this.low < length ? number - this.low : length;
    this.kept.splice(0, Number(count));
    this.low += count;
    if (this.kept.length < KEPT_MAX && !this.ended) process.stdin.resume();
  }
}

let epoch = null;
let acknowledged = 0n; // every number below is dealt with
let connection = null;
let input = null;

/** What belongs to one connection. */
class Connection {
  constructor(address, name, options, over) {
    this.timeout = options.timeout;
    this.answered = false;
    this.sentBelow = 0n;
    this.half = '';
    this.error = 'the server has closed the connection';
    this.socket = connect(address, options);
    this.socket.setEncoding('latin1');
    this.expectAnswer(ANSWER_MS);
    this.socket.on(options.tls ? 'secureConnect' : 'connect', () => {
      this.socket.setKeepAlive(true, KEEPALIVE_MS);
      this.socket.setNoDelay(true);
      this.socket.write(`?|ack|${name}\n`);
    });
    this.socket.on('data', (data) => this.read(data));
    this.socket.on('drain', () => this.send());
    this.socket.on('error', (error) => (this.error = error.message));
    this.socket.on('end', () => this.socket.destroy());
    this.socket.on('close', () => {
      clearTimeout(this.timer);
      over(this.error);
    });
  }

  /** Ends the connection when nothing has come for so long. 0: it may be quiet. */
  expectAnswer(ms) {
    clearTimeout(this.timer);
    if (ms > 0) this.timer = setTimeout(() => this.socket.destroy(new Error('no answer')), ms);
  }

  /** Whether something has been sent that is not acknowledged. */
  isOwed() {
    return this.sentBelow > input.low;
  }

  read(data) {
    const lines = (this.half + data).split('\n');
    this.half = lines.pop();
    for (const line of lines) {
      acknowledge(line.replace(/\r$/, ''));
      this.answered = true;
    }
    if (!this.answered) return;
    input.forgetBelow(acknowledged);
    this.expectAnswer(this.isOwed() ? this.timeout : 0);
    this.send();
  }

  /** Sends what has not been sent, as far as the socket takes it. */
  send() {
    if (!this.answered || this.socket.destroyed) return;
    input.forgetBelow(acknowledged);
    const { kept, low } = input;
    if (this.sentBelow < low) this.sentBelow = low;
    const wasOwed = this.isOwed();
    while (!this.socket.writableNeedDrain) {
      const start = Number(this.sentBelow - low);
      const lines = kept.slice(start, start + LINES_AT_ONCE);
      if (lines.length === 0) break;
      this.sentBelow += BigInt(lines.length);
      this.socket.write(lines.join(''), 'latin1');
    }
    if (!wasOwed && this.isOwed()) this.expectAnswer(this.timeout);
    if (input.ended && kept.length === 0) process.exit(0);
  }
}

function acknowledge(line) {
  const [sign, theirEpoch, number] = line.split('|');
  if (sign !== '+') stop(`Unexpected answer: ${line}`);
  if ((epoch !== null && theirEpoch !== epoch) || BigInt(number) < acknowledged) {
    stop(
      `The server has lost its past: epoch ${epoch}, number ${acknowledged} became epoch ${theirEpoch}, ` +
        `number ${number}. A person must decide what to send again.`,
    );
  }
  epoch = theirEpoch;
  acknowledged = BigInt(number);
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
      first: { type: 'string', default: '1' },
      timeout: { type: 'string', default: '90' },
      tls: { type: 'boolean' },
      ca: { type: 'string' },
    },
  });
  const [name, ...addresses] = positionals;
  if (addresses.length === 0) stop('usage: source.js [OPTIONS] NAME HOST:PORT [HOST:PORT...] < EVENTS');
  const options = prepare(values);
  input = new Input(BigInt(values.first), () => connection?.send());
  let pause = 100;
  const attempt = (index) => {
    const address = addresses[index % addresses.length];
    const before = acknowledged;
    connection = new Connection(address, name, options, (error) => {
      console.error(`${address}: ${error}; trying again`);
      pause = acknowledged > before ? 100 : Math.min(2 * pause, 5000);
      setTimeout(attempt, pause * (0.5 + Math.random() / 2), index + 1);
    });
  };
  attempt(0);
}

main();

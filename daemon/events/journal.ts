/**
 * The latest events on disk, so that the daemon after this one knows what has been published: it goes on where this one ended for
 * each subscriber (`followers.ts`), and does not publish again what a shim sends once more because it got no answer.
 *
 * It is in the state directory and never synced: what a killed process has written is there, and a reboot ends all subscribers and
 * shims as well. Segments are files named by the number of their first event; events are counted from the first of the
 * installation's life since the last reboot. A daemon goes on in the last segment: were each to begin one, a few that are killed soon
 * after their start would push out what a subscriber who is not back yet has not seen.
 */
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { Envelope } from '../../proto/gen/containerd/types/event.ts';
import { fingerprintOf } from '../../grpc/resume.ts';
import { messageOf } from '../../ttrpc/errors.ts';
import type { Logger } from '../log.ts';
import { identityOf } from './envelope.ts';

/** The first bytes of each segment. Others are of another version, and not read. */
const MAGIC = Buffer.from('moor-events 1\n');
const LENGTH_BYTES = 4;

/** A segment that is longer is followed by the next. */
const SEGMENT_BYTES = 256 << 10;
/** Segments kept: some ten thousand events. */
const SEGMENTS = 12;
/** Identities remembered: a shim repeats its last event only, and one daemon has some thousand shims at most. */
const REMEMBERED = 4096;

/** An event and its place among all. */
export interface Entry {
  readonly sequence: number;
  readonly envelope: Envelope;
}

export class Journal {
  readonly #directory: string;
  readonly #log: Logger;
  /** What makes the latest events known again; put together when the first is published. */
  #published: Set<string> | undefined;
  #segments: number[];
  #fd: number | undefined;
  /** Of the last segment, what is whole; 0 for one that is not written to any more. */
  #length = 0;
  #last: number;
  #broken = false;

  /** Reads what the daemon before has left in the directory, which is made if need be. */
  constructor(directory: string, log: Logger) {
    this.#directory = directory;
    this.#log = log;
    mkdirSync(directory, { recursive: true, mode: 0o700 });
    this.#segments = readdirSync(directory)
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
      .sort((one, other) => one - other);
    this.#last = (this.#segments[0] ?? 1) - 1;
    for (const first of this.#latest) {
      this.#length = 0;
      for (const { sequence, end } of this.#records(first)) {
        this.#last = sequence;
        this.#length = end;
      }
    }
  }

  /** The number of the last event; 0 before the first. */
  get last(): number {
    return this.#last;
  }

  /** Whether the event has been published before, by this daemon or the one before it. */
  has(envelope: Envelope): boolean {
    return this.#identities().has(identityOf(envelope));
  }

  /** Takes an event down, and returns its number. A disk that is full costs those who come back this event, and nobody else. */
  append(envelope: Envelope): number {
    this.#last += 1;
    this.#remember(identityOf(envelope));
    try {
      const bytes = Envelope.encode(envelope).finish();
      const record = Buffer.allocUnsafe(LENGTH_BYTES + bytes.length);
      record.writeUInt32BE(bytes.length);
      record.set(bytes, LENGTH_BYTES);
      this.#write(record);
      while (this.#segments.length > SEGMENTS) this.#remove(this.#segments.shift()!);
      this.#broken = false;
    } catch (error) {
      if (!this.#broken) this.#log.warn({ error: messageOf(error) }, 'events cannot be kept for subscribers');
      this.#broken = true;
      this.#endSegment();
    }
    return this.#last;
  }

  /** The events behind the one of that number, as far as they are kept. */
  *after(sequence: number): Generator<Entry> {
    const from = this.#segments.findLastIndex((first) => first <= sequence + 1);
    for (const first of this.#segments.slice(Math.max(from, 0))) {
      for (const entry of this.#read(first)) if (entry.sequence > sequence) yield entry;
    }
  }

  /** The number of the event whose bytes have that fingerprint (`grpc/resume.ts`); undefined when it is not kept. */
  find(fingerprint: string): number | undefined {
    for (const first of this.#segments.toReversed())
      for (const { sequence, bytes } of this.#records(first))
        if (fingerprintOf(bytes) === fingerprint) return sequence;
    return undefined;
  }

  /** The directory has been removed by others: the next event begins a segment in another one. */
  renew(): void {
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
    this.#closeSegment();
    this.#length = 0;
    this.#segments = [];
  }

  close(): void {
    this.#closeSegment();
  }

  /** Of the segments, those that what is remembered is in. The last may have been begun by a daemon that was killed soon after. */
  get #latest(): readonly number[] {
    return this.#segments.slice(-2);
  }

  /** The journal of the daemon before is read for them, which a start does not wait for. */
  #identities(): Set<string> {
    if (this.#published === undefined) {
      this.#published = new Set();
      for (const first of this.#latest)
        for (const { envelope } of this.#read(first)) this.#remember(identityOf(envelope));
    }
    return this.#published;
  }

  #remember(identity: string): void {
    const identities = this.#identities();
    identities.add(identity);
    if (identities.size <= REMEMBERED) return;
    const [oldest] = identities;
    identities.delete(oldest!);
  }

  #write(record: Buffer): void {
    if (this.#length === 0 || this.#length > SEGMENT_BYTES) this.#beginSegment();
    else this.#fd ??= this.#goOn();
    const written = writeSync(this.#fd!, record, 0, record.length, this.#length);
    this.#length += written;
    if (written < record.length) throw new Error(`${written} of ${record.length} bytes were written`);
  }

  #beginSegment(): void {
    this.#closeSegment();
    const first = this.#last;
    this.#segments = [...this.#segments.filter((other) => other !== first), first];
    this.#fd = openSync(join(this.#directory, String(first)), 'w', 0o600);
    this.#length = writeSync(this.#fd, MAGIC);
  }

  /** A record may be there in part, and its number is used: the next one begins a segment. */
  #endSegment(): void {
    this.#closeSegment();
    this.#length = 0;
    // One that was begun for this record would only push out others.
    if (this.#segments.at(-1) === this.#last) this.#remove(this.#segments.pop()!);
  }

  /** Opens the last segment, without what the daemon before has written of a record. */
  #goOn(): number {
    const fd = openSync(join(this.#directory, String(this.#segments.at(-1))), 'r+');
    ftruncateSync(fd, this.#length);
    return fd;
  }

  #remove(first: number): void {
    rmSync(join(this.#directory, String(first)), { force: true });
  }

  #closeSegment(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  *#read(first: number): Generator<Entry> {
    for (const { sequence, bytes } of this.#records(first)) {
      let envelope: Envelope;
      try {
        envelope = Envelope.decode(bytes);
      } catch (error) {
        this.#unreadable(error);
        return;
      }
      yield { sequence, envelope };
    }
  }

  /** What is whole in a segment: the daemon may have been killed, or the disk been full, within the last record. */
  *#records(first: number): Generator<{ sequence: number; bytes: Buffer; end: number }> {
    let bytes: Buffer;
    try {
      bytes = readFileSync(join(this.#directory, String(first)));
    } catch (error) {
      this.#unreadable(error);
      return;
    }
    if (!bytes.subarray(0, MAGIC.length).equals(MAGIC)) return;
    let sequence = first;
    for (let at = MAGIC.length; at + LENGTH_BYTES <= bytes.length; sequence += 1) {
      const begin = at + LENGTH_BYTES;
      const end = begin + bytes.readUInt32BE(at);
      if (end > bytes.length) return;
      yield { sequence, bytes: bytes.subarray(begin, end), end };
      at = end;
    }
  }

  #unreadable(error: unknown): void {
    this.#log.warn({ error: messageOf(error) }, 'some of the latest events cannot be read');
  }
}

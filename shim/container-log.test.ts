import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Code, isCode } from '../ttrpc/errors.ts';
import type { AttachRequest } from '../proto/gen/moor/shim/v1.ts';
import type { PartialMessage } from '../ttrpc/service.ts';
import { eventually, type Shim, Workshop } from './fixture.test.ts';

/** The lines of a log: the stream, the tag and the content of each. Every one has to be well-formed. */
function linesOf(path: string): string[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line) => {
      const [, rest] =
        /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z ((?:stdout|stderr) [FP] [^]*)$/.exec(line) ?? [];
      assert.ok(rest !== undefined, `malformed: ${line}`);
      return rest;
    });
}

/** Somebody who is attached: sends what is pushed, keeps what is heard. */
class Attached {
  stdout = '';
  stderr = '';
  readonly ended: Promise<void>;
  readonly #begun = Promise.withResolvers<void>();
  readonly #waiting: PartialMessage<AttachRequest>[] = [];
  readonly #leave = new AbortController();
  #wake = () => {};
  #isOver = false;

  constructor(shim: Shim, hasStdin: boolean) {
    this.#waiting.push({ id: shim.id, hasStdin });
    this.ended = this.#listen(shim);
    this.ended.catch((error: unknown) => this.#begun.reject(error));
  }

  static async to(shim: Shim, { hasStdin = false } = {}): Promise<Attached> {
    const attached = new Attached(shim, hasStdin);
    await attached.#begun.promise;
    return attached;
  }

  send(request: PartialMessage<AttachRequest>): void {
    this.#waiting.push(request);
    this.#wake();
  }

  says(text: string): Promise<unknown> {
    return eventually(`${text} in what is heard`, () => this.stdout.includes(text));
  }

  async leave(): Promise<void> {
    this.#leave.abort();
    await this.ended.catch(() => {});
  }

  async #listen(shim: Shim): Promise<void> {
    for await (const { stdout, stderr } of shim.moor.attach(this.#requests(), {
      signal: this.#leave.signal,
    })) {
      this.#begun.resolve();
      this.stdout += Buffer.from(stdout).toString();
      this.stderr += Buffer.from(stderr).toString();
    }
    this.#isOver = true;
    this.#wake();
  }

  async *#requests(): AsyncGenerator<PartialMessage<AttachRequest>> {
    while (!this.#isOver) {
      const request = this.#waiting.shift();
      if (request !== undefined) yield request;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

test('both outputs are in the log, whole, when the end is heard of', async () => {
  await using workshop = new Workshop();
  const daemon = await workshop.daemon();
  const shim = await workshop.shim({ daemon });
  const path = join(workshop.folder, 'a log');
  const script = 'seq 1 20000; echo to stderr >&2; printf %20000s x; echo; printf last';
  await shim.run({ args: ['sh', '-c', script], stdout: `cri://${encodeURI(path)}`, stderr: '' });
  await shim.wait();
  const lines = linesOf(path);
  const out = lines.filter((line) => line.startsWith('stdout'));
  assert.deepEqual(
    out.slice(0, 20000),
    Array.from({ length: 20000 }, (_, index) => `stdout F ${index + 1}`),
  );
  assert.equal(out[20000], `stdout P ${' '.repeat(16384)}`);
  assert.equal(out[20001], `stdout F ${'x'.padStart(20000 - 16384)}`);
  assert.deepEqual(out.slice(20002), ['stdout P last']);
  assert.deepEqual(
    lines.filter((line) => line.startsWith('stderr')),
    ['stderr F to stderr'],
  );
});

test('a rotated log goes on in the new file: no line is lost or doubled', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const path = join(workshop.folder, 'log');
  const script = 'i=0; while [ $i -lt 3000 ]; do echo $i; i=$((i+1)); done';
  await shim.create({ args: ['sh', '-c', script], stdout: `cri://${path}` });
  await shim.start();
  const parts: string[] = [];
  const ended = shim.wait();
  const over = { yet: false };
  void ended.then(() => (over.yet = true));
  for (let part = 0; part < 5 && !over.yet; part += 1) {
    await eventually('something to rotate', () => over.yet || readFileSync(path).length > 0);
    const rotated = `${path}.${part}`;
    renameSync(path, rotated);
    parts.push(rotated);
    await shim.moor.reopenLog({ id: shim.id }).catch((error: unknown) => {
      // The container was faster.
      if (!isCode(error, Code.FailedPrecondition)) throw error;
      writeFileSync(path, '', { flag: 'a' });
    });
  }
  await ended;
  const lines = [...parts, path].flatMap(linesOf);
  assert.deepEqual(
    lines,
    Array.from({ length: 3000 }, (_, index) => `stdout F ${index}`),
  );
});

test('a log that cannot be opened fails the creation; one that cannot be opened again is gone on with', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const folder = join(workshop.folder, 'logs');
  const path = join(folder, 'log');
  const refused = (error: unknown) =>
    isCode(error, Code.FailedPrecondition) &&
    error.message.includes(`failed to open the container log ${path}`);
  await assert.rejects(shim.create({ stdout: `cri://${path}` }), refused);
  mkdirSync(folder);
  await shim.run({ args: ['sh', '-c', 'read x; echo $x'], stdout: `cri://${path}`, stdin: 'attach:///' });
  const moved = `${folder}-away`;
  renameSync(folder, moved);
  await assert.rejects(shim.moor.reopenLog({ id: shim.id }), refused);
  const attached = await Attached.to(shim, { hasStdin: true });
  attached.send({ stdin: Buffer.from('still here\n') });
  await shim.wait();
  await attached.ended;
  assert.deepEqual(linesOf(join(moved, 'log')), ['stdout F still here']);
  assert.equal(attached.stdout, 'still here\n');
});

test('a full disk loses lines, not the container; what is in the log is whole lines', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const folder = join(workshop.folder, 'small');
  mkdirSync(folder);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', folder]);
  try {
    const path = join(folder, 'log');
    writeFileSync(join(folder, 'ballast'), Buffer.alloc(40_000));
    const script = 'read x; seq 1 20000; read x; echo after';
    await shim.run({ args: ['sh', '-c', script], stdout: `cri://${path}`, stdin: 'attach:///' });
    const attached = await Attached.to(shim, { hasStdin: true });
    attached.send({ stdin: Buffer.from('\n') });
    await attached.says('\n20000\n');
    await eventually('the loss is told', () => shim.log.includes('lines are lost'));
    rmSync(join(folder, 'ballast'));
    attached.send({ stdin: Buffer.from('\n') });
    assert.equal((await shim.wait()).exitStatus, 0);
    const lines = linesOf(path);
    assert.equal(lines.at(-1), 'stdout F after');
    assert.ok(lines.length < 20000);
    assert.match(shim.log, /can be written again/);
  } finally {
    await shim.kill(9).catch(() => {});
    execFileSync('umount', ['--lazy', folder]);
  }
});

test('those who are attached hear it, and one who does not listen holds up nobody', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const path = join(workshop.folder, 'log');
  const script = 'read x; head -c 8000000 /dev/zero | tr "\\0" x; echo; echo done; echo aside >&2';
  await shim.run({ args: ['sh', '-c', script], stdout: `cri://${path}`, stdin: 'attach:///?once=true' });
  const listener = await Attached.to(shim);
  const leave = new AbortController();
  const deaf = shim.moor.attach(
    (async function* () {
      yield { id: shim.id };
      await new Promise((resolve) => leave.signal.addEventListener('abort', resolve));
    })(),
    { signal: leave.signal },
  );
  // Asked once, for the first answer, and never again.
  await deaf[Symbol.asyncIterator]().next();
  const writer = await Attached.to(shim, { hasStdin: true });
  writer.send({ stdin: Buffer.from('go\n') });
  assert.equal((await shim.wait()).exitStatus, 0);
  leave.abort();
  await listener.ended;
  await writer.ended;
  assert.match(listener.stdout, /done\n$/);
  assert.equal(listener.stderr, 'aside\n');
  const lines = linesOf(path);
  assert.equal(lines.filter((line) => line.startsWith('stdout P')).length, Math.floor(8_000_000 / 16384));
  assert.equal(lines.filter((line) => line === 'stdout F done').length, 1);
});

test('input for one: it ends when the first who has some leaves; for all: it does not', async () => {
  await using workshop = new Workshop();
  const once = await workshop.shim();
  await once.run({ args: ['cat'], stdout: 'cri:///', stdin: 'attach:///?once=true' });
  const onlooker = await Attached.to(once);
  await onlooker.leave();
  const first = await Attached.to(once, { hasStdin: true });
  first.send({ stdin: Buffer.from('hello\n') });
  await first.says('hello\n');
  first.send({ closeStdin: true });
  assert.equal((await once.wait()).exitStatus, 0);
  await first.ended;

  const always = await workshop.shim();
  await always.run({ args: ['cat'], stdout: 'cri:///', stdin: 'attach:///' });
  for (const word of ['one\n', 'two\n']) {
    const attached = await Attached.to(always, { hasStdin: true });
    attached.send({ stdin: Buffer.from(word) });
    await attached.says(word);
    await attached.leave();
  }
  assert.equal((await always.state()).status, 2);

  const mute = await workshop.shim();
  await mute.run({ stdout: 'cri:///' });
  await assert.rejects(Attached.to(mute, { hasStdin: true }), { code: Code.FailedPrecondition });
});

test('a terminal is logged and attached to as well', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const path = join(workshop.folder, 'log');
  await shim.run({
    args: ['sh', '-c', 'stty -echo; echo ready; read x; echo "got $x"; stty size'],
    terminal: true,
    stdout: `cri://${path}`,
    stdin: 'attach:///',
  });
  const attached = await Attached.to(shim, { hasStdin: true });
  await eventually('ready', () => readFileSync(path, 'utf8').includes('ready'));
  await shim.task.resizePty({ id: shim.id, width: 91, height: 17 });
  attached.send({ stdin: Buffer.from('it\n') });
  await attached.says('17 91');
  await shim.wait();
  await attached.ended;
  assert.deepEqual(linesOf(path), ['stdout F ready\r', 'stdout F got it\r', 'stdout F 17 91\r']);
});

test('what outlives a container in a shared PID namespace is ended with it, and its output is in the log', async () => {
  await using workshop = new Workshop();
  const shim = await workshop.shim();
  const path = join(workshop.folder, 'log');
  const script = '(while true; do echo more; sleep 0.1; done) & sleep 0.5; echo mine';
  await shim.run({ args: ['sh', '-c', script], hostPid: true, stdout: `cri://${path}` });
  await shim.wait();
  assert.ok(linesOf(path).includes('stdout F mine'));
  await shim.delete();
});

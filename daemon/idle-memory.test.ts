import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { IdleMemory } from './idle-memory.ts';

const MIB = 1 << 20;
const PACE = 1000;

/** A process that holds 40 MiB, of which it can hand nothing back, and how often it was told to. */
class Process {
  readonly #timers: TestContext['mock']['timers'];
  busy = 0;
  slack = 10 * MIB;
  released = 0;

  constructor({ mock }: TestContext) {
    mock.timers.enable({ apis: ['setInterval'] });
    this.#timers = mock.timers;
  }

  utilization = (): number => this.busy;
  resident = (): number => 40 * MIB + this.slack;
  release = (): void => {
    this.released += 1;
    this.slack = 0;
  };

  passes(): void {
    this.#timers.tick(PACE);
  }
}

test('what the start has taken is handed back once', (t) => {
  const process = new Process(t);
  using _ = new IdleMemory(process, PACE);
  process.passes();
  assert.equal(process.released, 1);
  process.slack = 5 * MIB;
  for (let look = 0; look < 10; look += 1) process.passes();
  assert.equal(process.released, 1);
});

test('what busy times have taken is handed back when they are over', (t) => {
  const process = new Process(t);
  using _ = new IdleMemory(process, PACE);
  process.passes();
  process.slack = 80 * MIB;
  process.busy = 0.3;
  for (let look = 0; look < 10; look += 1) process.passes();
  assert.equal(process.released, 1);
  process.busy = 0.01;
  process.passes();
  assert.equal(process.released, 2);
  assert.equal(process.slack, 0);
});

test('what is needed is not asked for again and again', (t) => {
  const process = new Process(t);
  process.slack = 80 * MIB;
  process.release = () => {
    process.released += 1;
  };
  using _ = new IdleMemory(process, PACE);
  for (let look = 0; look < 10; look += 1) process.passes();
  assert.equal(process.released, 1);
});

test('nothing is looked at once it is closed', (t) => {
  const process = new Process(t);
  new IdleMemory(process, PACE)[Symbol.dispose]();
  process.passes();
  assert.equal(process.released, 0);
});

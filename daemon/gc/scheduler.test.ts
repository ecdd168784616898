import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setImmediate as turn, setTimeout as delay } from 'node:timers/promises';
import { Code, isCode } from '../../ttrpc/errors.ts';
import { openLog } from '../log.ts';
import type { Collected } from './collector.ts';
import { defaultConfig, parseConfig } from '../config.ts';
import { GcScheduler, type SchedulerOptions, defaultOptions, schedulerOptions } from './scheduler.ts';

/** A collector whose collections end when the test says so. */
class Manual {
  readonly begun: { end(collected?: Partial<Collected>): void; fail(error: Error): void }[] = [];
  wrote: (deletion: boolean) => void = () => undefined;
  #waiting: (() => void)[] = [];

  onWrite(listener: (deletion: boolean) => void): void {
    this.wrote = listener;
  }

  collect(): Promise<Collected> {
    const { promise, resolve, reject } = Promise.withResolvers<Collected>();
    this.begun.push({
      end: (collected) => resolve({ seen: 0, removed: [], elapsed: 0.01, expires: undefined, ...collected }),
      fail: reject,
    });
    for (const wake of this.#waiting.splice(0)) wake();
    return promise;
  }

  /** Resolves when that many collections have begun. */
  async times(count: number): Promise<void> {
    while (this.begun.length < count) {
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
      });
    }
  }
}

function scheduler(t: TestContext, options: Partial<SchedulerOptions> = {}) {
  const collector = new Manual();
  const scheduler = new GcScheduler(
    collector,
    { ...defaultOptions, startupDelay: 0, ...options },
    openLog('fatal'),
  );
  t.after(() => {
    for (const collection of collector.begun) collection.end();
    return scheduler.close();
  });
  return { collector, scheduler };
}

test('collects once at the start, and then when something was deleted or much was written', async (t) => {
  const { collector, scheduler: gc } = scheduler(t, { mutationThreshold: 3 });
  gc.start();
  await collector.times(1);
  collector.begun[0]!.end();
  await delay(20);
  collector.wrote(false);
  collector.wrote(false);
  await delay(20);
  assert.equal(collector.begun.length, 1);
  collector.wrote(false);
  await collector.times(2);
  collector.begun[1]!.end();
  await turn();
  collector.wrote(true);
  await collector.times(3);
});

test('a request is answered by a collection that began after it', async (t) => {
  const { collector, scheduler: gc } = scheduler(t);
  let first = false;
  let second = false;
  const one = gc.collect().then(() => (first = true));
  await collector.times(1);
  const two = gc.collect().then(() => (second = true));
  collector.begun[0]!.end();
  await collector.times(2);
  await one;
  assert.deepEqual([first, second], [true, false]);
  collector.begun[1]!.end();
  await two;
});

test('a failure reaches who asked, and is tried again', async (t) => {
  const { collector, scheduler: gc } = scheduler(t);
  const asked = gc.collect();
  await collector.times(1);
  collector.begun[0]!.fail(new Error('disk full'));
  await assert.rejects(asked, /disk full/);
  const again = gc.collect();
  await collector.times(2);
  collector.begun[1]!.end();
  await again;
});

test('what expires is collected then', async (t) => {
  const { collector, scheduler: gc } = scheduler(t);
  gc.start();
  await collector.times(1);
  const begin = Date.now();
  collector.begun[0]!.end({ expires: begin + 60 });
  await collector.times(2);
  assert.ok(Date.now() - begin >= 55);
});

test('a caller who leaves, and a daemon that stops, wait for nothing', async (t) => {
  const { collector, scheduler: gc } = scheduler(t);
  const caller = new AbortController();
  const asked = gc.collect(caller.signal);
  await collector.times(1);
  caller.abort(new Error('gone'));
  await assert.rejects(asked, /gone/);
  const late = gc.collect();
  const closed = gc.close();
  collector.begun[0]!.end();
  await assert.rejects(late, (error) => isCode(error, Code.Unavailable));
  await closed;
  await assert.rejects(gc.collect(), (error) => isCode(error, Code.Unavailable));
});

test('the configuration says when, and what is beyond its bounds counts as the bound', () => {
  const optionsOf = (toml: string): SchedulerOptions =>
    schedulerOptions(parseConfig(toml, 'x').plugins['io.containerd.gc.v1.scheduler']);
  assert.deepEqual(
    schedulerOptions(defaultConfig().plugins['io.containerd.gc.v1.scheduler']),
    defaultOptions,
  );
  const table = '[plugins."io.containerd.gc.v1.scheduler"]\n';
  const given = optionsOf(
    `${table}pause_threshold = 0.1\ndeletion_threshold = 5\nmutation_threshold = 7\nschedule_delay = "20ms"\nstartup_delay = "1s"`,
  );
  assert.deepEqual(given, {
    pauseThreshold: 0.1,
    deletionThreshold: 5,
    mutationThreshold: 7,
    scheduleDelay: 20,
    startupDelay: 1000,
  });
  const beyond = optionsOf(`${table}pause_threshold = 0.9\ndeletion_threshold = -1\nmutation_threshold = -1`);
  assert.deepEqual([beyond.pauseThreshold, beyond.deletionThreshold, beyond.mutationThreshold], [0.5, 0, 0]);
});

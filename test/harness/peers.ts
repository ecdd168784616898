/**
 * Suites that are run against several kinds of daemon. A check that fails on Debian's containerd is a wrong check, unless
 * it is marked as one of the things Moor does better.
 *
 * `TEST_PEERS=containerd`, `TEST_PEERS=moord` or both with a comma choose; without it, each suite's own choice holds.
 */
import { after, afterEach, before, beforeEach, describe, type TestContext } from 'node:test';
import type { Ctr } from './ctr.ts';
import { Daemon, type DaemonOptions, type Peer } from './daemon.ts';
import { Dockerd, type DockerdOptions } from './dockerd.ts';

/** What the tests of one suite share: a daemon, and ctr in a namespace of it. */
export interface Rig {
  readonly peer: Peer;
  readonly daemon: Daemon;
  readonly ctr: Ctr;
}

export interface SuiteOptions extends DaemonOptions {
  /**
   * The kinds it runs on unless TEST_PEERS says otherwise; both by default. Suites that take long, or that containerd
   * does not always pass, name moord only.
   */
  readonly peers?: readonly Peer[];
  /** Milliseconds for the whole suite; what a test awaits has a tighter bound of its own. */
  readonly timeout?: number;
  /** How many tests run at once. */
  readonly concurrency?: number;
}

const chosen = process.env['TEST_PEERS']?.split(',') as Peer[] | undefined;

/**
 * Declares a suite once per kind of daemon. The daemon is started before its first test and stopped, with everything it
 * made, after its last; its log is shown with a test that fails.
 */
export function suite(topic: string, options: SuiteOptions, tests: (rig: Rig) => void): void {
  for (const peer of chosen ?? options.peers ?? ['moord', 'containerd']) {
    const { timeout = 240_000, concurrency = 1 } = options;
    describe(`${topic} on ${peer}`, { timeout, concurrency }, () => {
      let daemon: Daemon | undefined;
      let ctr: Ctr | undefined;
      const started = <T>(thing: T | undefined): T => {
        if (thing === undefined) throw new Error('the daemon has not been started');
        return thing;
      };
      before(async () => {
        daemon = await Daemon.start(peer, options);
        ctr = daemon.ctr();
      });
      after(async () => {
        await daemon?.stop();
      });
      let logged = 0;
      beforeEach(() => {
        logged = daemon?.logged() ?? 0;
      });
      afterEach((context) => {
        const test = context as TestContext;
        if (!test.passed) test.diagnostic(`log of ${peer}:\n${daemon?.tail(logged) ?? '(not started)'}`);
      });
      tests({
        peer,
        get daemon() {
          return started(daemon);
        },
        get ctr() {
          return started(ctr);
        },
      });
    });
  }
}

export interface DockerRig extends Rig {
  readonly docker: Dockerd;
}

/** Declares a suite as `suite` does, with a dockerd over the daemon. */
export function dockerSuite(
  topic: string,
  options: SuiteOptions & DockerdOptions,
  tests: (rig: DockerRig) => void,
): void {
  suite(topic, options, (rig) => {
    let docker: Dockerd | undefined;
    before(async () => {
      docker = rig.daemon.use(await Dockerd.start(rig.daemon, options));
    });
    afterEach((context) => {
      const test = context as TestContext;
      if (!test.passed) test.diagnostic(`log of dockerd:\n${docker?.tail() ?? '(not started)'}`);
    });
    tests({
      peer: rig.peer,
      get daemon() {
        return rig.daemon;
      },
      get ctr() {
        return rig.ctr;
      },
      get docker() {
        if (docker === undefined) throw new Error('dockerd has not been started');
        return docker;
      },
    });
  });
}

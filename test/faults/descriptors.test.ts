/** The daemon may open no more files: what needs one is refused by saying so, nothing spins or is left, and with room it goes on by itself. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { afterEach, it } from 'node:test';
import { freeze } from '../../daemon/services/testing/freeze.ts';
import { alive, commandLine, descriptors, processOf } from '../harness/processes.ts';
import { expectNothingLeft, holdings } from '../harness/leftovers.ts';
import { suite } from '../harness/peers.ts';
import { describe } from '../harness/program.ts';
import { eventually, soon } from '../harness/wait.ts';

const MANY = 60;
/** Of those, as many as the daemon may find room for: what it had open for calls before is closed meanwhile. */
const ROOM = 30;
/** So many containers, and room for the half of them. */
const CREW = 12;

suite('no descriptors left', { peers: ['moord'] }, (rig) => {
  /** Lets the daemon open so many more files than it has. */
  const allow = (more: number): void => {
    const open = new Set(readdirSync(`/proc/${rig.daemon.pid}/fd`).map(Number));
    let limit = 0;
    for (let free = 0; free < more; limit += 1) if (!open.has(limit)) free += 1;
    execFileSync('prlimit', ['--pid', String(rig.daemon.pid), `--nofile=${limit}:`]);
  };
  afterEach(() => allow(1000));

  it('connections that there is no descriptor for are closed at no cost, and later ones are served', async () => {
    const { ctr, daemon } = rig;
    await ctr.runDetached('keeper', ['/bin/sleep', '1000']);
    allow(2);
    const before = processOf(daemon.pid)!.used;
    const sockets = Array.from({ length: MANY }, () => connect(daemon.address));
    const closed = sockets.map((socket) => {
      socket.on('error', () => undefined).resume();
      return once(socket, 'close');
    });
    // All but those that it has room for.
    let count = 0;
    await soon(
      'those without a descriptor are closed',
      new Promise<void>((resolve) => {
        for (const end of closed) void end.then(() => (count += 1) >= MANY - ROOM && resolve());
      }),
    );
    assert.ok(processOf(daemon.pid)!.used - before < 5, 'seconds of the processor');
    for (const socket of sockets) socket.destroy();
    await Promise.all(closed);
    allow(1000);
    assert.equal((await ctr.exec('keeper', ['/bin/echo', 'here'])).stdout, 'here\n');
  });

  it('a shim that cannot be connected to once it is there goes with what was made for it', async () => {
    const { ctr, daemon } = rig;
    const held = holdings(daemon);
    const template = await eventually('there is a template', () =>
      daemon.shims().find((pid) => commandLine(pid).endsWith(' template')),
    );
    // It answers when the daemon has no descriptor left to go on with.
    await freeze(template);
    const running = ctr.run('second', ['/bin/true'], ['--rm']);
    const record = join(daemon.bundle(ctr.namespace, 'second'), 'bootstrap.json');
    await eventually('a shim is asked for', () => existsSync(record));
    allow(0);
    process.kill(template, 'SIGCONT');
    const refused = await running;
    assert.match(refused.stderr, /too many open files/i, describe(refused));
    allow(1000);
    await ctr.call(['containers', 'rm', 'second']);
    const again = await ctr.run('second', ['/bin/echo', 'again'], ['--rm']);
    assert.equal(again.stdout, 'again\n', describe(again));
    await expectNothingLeft(daemon, held);
  });

  it('a new container is refused by name of the limit, leaves nothing, and is made when there is room', async () => {
    const { ctr, daemon } = rig;
    const held = holdings(daemon);
    // What the daemon closes between the count and the limit is room as well.
    let refusals = 0;
    for (let attempt = 0; attempt < 3 || (refusals === 0 && attempt < 30); attempt += 1) {
      allow(1 + (attempt % 3));
      const refused = await ctr.run('second', ['/bin/true'], ['--rm']);
      if (/too many open files/i.test(refused.stderr)) refusals += 1;
      allow(1000);
      await ctr.call(['tasks', 'rm', '-f', 'second']);
      await ctr.call(['containers', 'rm', 'second']);
      const again = await ctr.run('second', ['/bin/echo', 'again'], ['--rm']);
      assert.equal(again.stdout, 'again\n', describe(again));
      await expectNothingLeft(daemon, held);
    }
    assert.ok(refusals > 0, 'no container was refused');
    assert.equal((await ctr.task('keeper'))?.status, 'RUNNING');
    await ctr.remove('keeper');
  });

  it('a daemon that cannot connect to all its shims takes none for dead, and the next one finds them all', async () => {
    const { ctr, daemon } = rig;
    await daemon.restart();
    const enough = descriptors(daemon.pid).length;
    const ids = Array.from({ length: CREW }, (_, index) => `c${index}`);
    await Promise.all(ids.map((id) => ctr.runDetached(id, ['/bin/sleep', '1000'])));
    const pids = [...(await ctr.tasks()).values()].map(({ pid }) => pid);
    await daemon.kill9();
    const { program } = daemon;
    const frugal = join(daemon.directory, 'frugal');
    writeFileSync(frugal, `#!/bin/sh\nulimit -n ${enough + CREW / 2}\nexec ${program} "$@"\n`, {
      mode: 0o700,
    });
    daemon.program = frugal;
    try {
      daemon.launch();
      await eventually('some shim cannot be connected to', () =>
        /the connection to a shim has to wait/.test(readFileSync(daemon.log, 'utf8')),
      );
    } finally {
      daemon.program = program;
    }
    for (const pid of pids) assert.ok(alive(pid), `process ${pid} of a container`);
    await daemon.restart();
    for (const id of ids) {
      assert.equal((await ctr.exec(id, ['/bin/echo', 'here'])).stdout, 'here\n');
      await ctr.remove(id);
    }
  });
});

/** What SECURITY.md promises: who can open what, what containers cannot reach, and where no secret is. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { lstatSync, readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { EventsDefinition } from '../../proto/gen/containerd/services/events.ts';
import { Envelope } from '../../proto/gen/containerd/types/event.ts';
import { Code } from '../../ttrpc/errors.ts';
import { alive, processes, workingDirectory } from '../harness/processes.ts';
import { suite } from '../harness/peers.ts';
import { pull } from '../harness/transfer.ts';
import { describe } from '../harness/program.ts';
import { failureOf } from '../harness/rpc.ts';
import { eventually } from '../harness/wait.ts';
import { Moor } from '../harness/moor.ts';

/** Nobody else's on this host, whose every process is looked at. */
const secret = `hunter2-${randomUUID()}`;

/** What the runtime writes into a bundle: pids, and what went wrong. */
const runtimes = /\/(?:init|exec-\d+)\.pid$|\.log$/;

suite(
  'security',
  { peers: ['moord'], env: { MOOR_TEST_SECRET: secret, AWS_SECRET_ACCESS_KEY: secret } },
  (rig) => {
    const environment = (pid: number): string[] =>
      readFileSync(`/proc/${pid}/environ`, 'utf8')
        .split('\0')
        .filter((entry) => entry !== '');

    it('sockets, directories and files below root and state are root’s, and for root alone', async () => {
      const { ctr, daemon } = rig;
      await ctr.runDetached('a', ['/bin/sleep', '1000']);
      const walk = (path: string): void => {
        const status = lstatSync(path);
        if (path.endsWith('/rootfs') || status.isSymbolicLink()) return;
        const bits = status.mode & 0o777;
        assert.deepEqual([status.uid, status.gid], [0, 0], path);
        // A directory may be passed through by who knows a name in it, such as a container’s root in a user namespace.
        // Connecting takes the right to write (unix(7)), and shims' sockets are where nobody looks.
        const mayNot = status.isDirectory()
          ? 0o066
          : status.isSocket() || runtimes.test(path)
            ? 0o022
            : 0o077;
        assert.equal(bits & mayNot, 0, `${path} is ${bits.toString(8)}`);
        // Behind a closed door it does not matter.
        if (!status.isDirectory() || (bits & 0o077) === 0) return;
        for (const name of readdirSync(path)) walk(join(path, name));
      };
      walk(daemon.root);
      // What runc keeps is runc’s.
      for (const name of readdirSync(daemon.state)) if (name !== 'runc') walk(join(daemon.state, name));
      for (const socket of [daemon.address, `${daemon.address}.ttrpc`])
        assert.equal(lstatSync(socket).mode & 0o777, 0o600, socket);
    });

    it('a shim has no more of the daemon’s environment and descriptors than it needs', async () => {
      const { ctr, daemon } = rig;
      const bundle = daemon.bundle(ctr.namespace, 'a');
      const shims = daemon.shims().filter((pid) => workingDirectory(pid) === bundle);
      assert.equal(shims.length, 1);
      for (const pid of daemon.shims()) {
        if (pid === daemon.pid) continue;
        for (const entry of environment(pid)) assert.ok(!entry.includes(secret), `${pid}: ${entry}`);
      }
      const names = environment(shims[0]!).map((entry) => entry.split('=')[0]!);
      const known =
        /^(PATH|TTRPC_ADDRESS|GRPC_ADDRESS|NAMESPACE|MAX_SHIM_VERSION|MOOR_\w+|UV_\w+|NODE_\w+|TMPDIR)$/;
      for (const name of names) assert.match(name, known);
      for (const fd of readdirSync(`/proc/${shims[0]}/fd`)) {
        let target = '';
        try {
          target = readlinkSync(`/proc/${shims[0]}/fd/${fd}`);
        } catch {
          continue;
        }
        assert.ok(!target.startsWith(daemon.root), `the shim holds ${target}`);
      }
    });

    it('a container has its own environment, and can reach neither sockets nor FIFOs of others', async () => {
      const { ctr, daemon } = rig;
      const { pid } = (await ctr.task('a'))!;
      for (const entry of environment(pid)) {
        assert.ok(!entry.includes(secret), entry);
        assert.doesNotMatch(entry, /^(TTRPC_ADDRESS|GRPC_ADDRESS|MOOR_|NODE_)/);
      }
      const paths = [daemon.address, `${daemon.address}.ttrpc`, daemon.state, daemon.root, ctr.fifos];
      for (const path of paths) {
        const seen = await ctr.exec('a', ['/bin/sh', '-c', `ls -d ${path}`]);
        assert.notEqual(seen.code, 0, describe(seen));
      }
      for (const fd of readdirSync(`/proc/${pid}/fd`)) {
        const target = readlinkSync(`/proc/${pid}/fd/${fd}`);
        assert.match(
          target,
          /^(\/dev\/null|pipe:|\/dev\/pts\/)/,
          `descriptor ${fd} of the container is ${target}`,
        );
      }
      // In the network namespace of the host, abstract sockets would be there for it.
      const abstract = readFileSync('/proc/net/unix', 'utf8')
        .split('\n')
        .filter((line) => line.includes(`@${daemon.directory}`));
      assert.deepEqual(abstract, []);
      assert.ok(alive(pid));
    });

    it('a registry’s password is in no process list, log, event, error or record', async () => {
      const { ctr, daemon } = rig;
      const moor = new Moor(daemon, ctr.namespace);
      const events: string[] = [];
      const over = new AbortController();
      using connection = daemon.connect();
      const listening = (async () => {
        const { subscribe } = connection.service(EventsDefinition);
        for await (const envelope of subscribe({ filters: [] }, { signal: over.signal }))
          events.push(Buffer.from(Envelope.encode(envelope).finish()).toString('latin1'));
      })().catch(() => undefined);
      await eventually('the subscription stands', async () => {
        await ctr.ok('namespaces', 'label', ctr.namespace, `probe=${performance.now()}`);
        return events.length > 0;
      });
      const lists: string[] = [];
      const watch = setInterval(() => {
        for (const { pid } of processes()) {
          if (pid === pulling.pid) continue;
          try {
            lists.push(readFileSync(`/proc/${pid}/cmdline`, 'utf8'));
          } catch {
            // It has ended.
          }
        }
      }, 20);
      // Nobody listens there.
      const name = `127.0.0.1:1/harbour/ship:1`;
      const pulling = moor.spawn(
        ['images', 'pull', '--user', `sailor:${secret}`, name],
        ['ignore', 'pipe', 'pipe'],
      );
      let said = '';
      for (const stream of [pulling.stdout!, pulling.stderr!])
        stream.on('data', (chunk: Buffer) => (said += chunk.toString()));
      await new Promise((resolve) => pulling.once('close', resolve));
      clearInterval(watch);
      for (const text of [
        `sailor:${secret}@127.0.0.1:1/x:1`,
        `http://sailor:${secret}@127.0.0.1:1/x:1`,
        `sailor:pass/${secret}@127.0.0.1:1/x:1`,
      ]) {
        const failure = await failureOf(pull(daemon, ctr.namespace, text));
        assert.equal(failure.code, Code.InvalidArgument, failure.message);
        assert.ok(!failure.message.includes(secret), failure.message);
      }
      assert.notEqual(pulling.exitCode, 0);
      assert.ok(!said.includes(secret), said);
      assert.ok(!lists.join('\n').includes(secret), 'in a process list');
      assert.ok(!readFileSync(daemon.log, 'utf8').includes(secret), 'in the log');
      for (const name of readdirSync(join(daemon.root, 'metadata')))
        assert.ok(!readFileSync(join(daemon.root, 'metadata', name)).includes(secret), `in ${name}`);
      await ctr.remove('a');
      // The end of the container comes after all of that.
      await eventually('its end is told', () => events.some((event) => event.includes('/tasks/delete')));
      over.abort();
      await listening;
      assert.ok(!events.join('\n').includes(secret), 'in an event');
    });
  },
);

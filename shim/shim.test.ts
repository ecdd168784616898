import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Reader, Workshop } from './fixture.test.ts';

test('a container runs, prints, ends and is deleted, and every step is told in order', async () => {
  await using workshop = new Workshop();
  const daemon = await workshop.daemon();
  const shim = await workshop.shim({ daemon });
  const out = new Reader(workshop.folder, 'out').open();
  const pid = await shim.run({ args: ['sh', '-c', 'echo hello; exit 42'], stdout: out.path });
  assert.ok(pid > 0);
  assert.equal((await shim.wait()).exitStatus, 42);
  assert.equal(await out.end(), 'hello\n');
  const deleted = await shim.delete();
  assert.equal(deleted.exitStatus, 42);
  assert.equal(deleted.pid, pid);
  await shim.moor.flush({});
  assert.deepEqual(daemon.topics(), ['create', 'start', 'exit', 'delete']);
});

/** What a crash, a full disk or a careless hand can do to the state on disk costs at most the container it happened to. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { it } from 'node:test';
import { describe } from './harness/program.ts';
import { Daemon, containerPids } from './harness/daemon.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { suite } from './harness/peers.ts';
import { eventually, soon } from './harness/wait.ts';

suite('damage', { peers: ['moord'] }, (rig) => {
  const damages: Readonly<Record<string, (bundle: string) => void>> = {
    'an empty bootstrap.json': (bundle) => truncateSync(join(bundle, 'bootstrap.json')),
    'a garbled bootstrap.json': (bundle) =>
      writeFileSync(join(bundle, 'bootstrap.json'), '{"version":1,"addr'),
    'no bootstrap.json': (bundle) => rmSync(join(bundle, 'bootstrap.json')),
    'no config.json': (bundle) => rmSync(join(bundle, 'config.json')),
    'a garbled config.json': (bundle) => writeFileSync(join(bundle, 'config.json'), '\0\0\0'),
    'a garbled init.pid': (bundle) => writeFileSync(join(bundle, 'init.pid'), 'many'),
    'no init.pid': (bundle) => rmSync(join(bundle, 'init.pid')),
    'an empty bundle': (bundle) => {
      for (const name of ['bootstrap.json', 'config.json', 'init.pid', 'options', 'log', 'runc.log'])
        rmSync(join(bundle, name), { force: true });
    },
  };

  for (const [what, damage] of Object.entries(damages))
    it(`${what}: the daemon starts, the others run on, and the container can be deleted`, async () => {
      const { ctr, daemon } = rig;
      await ctr.runDetached('sound', ['/bin/sleep', '1000']);
      const sound = await ctr.task('sound');
      const before = holdings(daemon);
      await ctr.runDetached('hurt', ['/bin/sleep', '1000']);
      await daemon.kill9();
      damage(daemon.bundle(ctr.namespace, 'hurt'));
      await daemon.start();
      assert.deepEqual(await ctr.task('sound'), sound);
      assert.equal((await ctr.exec('sound', ['/bin/true'])).code, 0);
      const task = await ctr.call(['tasks', 'rm', '-f', 'hurt']);
      assert.ok(task.code === 0 || /not found/.test(task.stderr), describe(task));
      await ctr.ok('containers', 'rm', 'hurt');
      await eventually('its processes are gone', () => containerPids(ctr.namespace, 'hurt').length === 0);
      assert.equal((await ctr.run('hurt', ['/bin/echo', 'anew'], ['--rm'])).stdout, 'anew\n');
      await expectNothingLeft(daemon, before, { except: /^descriptor/ });
      await ctr.remove('sound');
    });

  it('things that are no bundles are passed over', async () => {
    const { ctr, daemon } = rig;
    await ctr.runDetached('among', ['/bin/sleep', '1000']);
    const task = await ctr.task('among');
    await daemon.kill9();
    const tasks = join(daemon.bundle(ctr.namespace, 'x'), '..');
    writeFileSync(join(tasks, 'a file'), 'not a directory');
    mkdirSync(join(tasks, 'no container'));
    mkdirSync(join(tasks, '..', 'no namespace!'), { recursive: true });
    await daemon.start();
    assert.deepEqual(await ctr.task('among'), task);
    assert.equal((await ctr.tasks()).size, 1);
    await ctr.remove('among');
    for (const path of [join(tasks, 'a file'), join(tasks, '..', 'no namespace!')])
      rmSync(path, { recursive: true, force: true });
  });

  it('a second daemon on the same directories refuses to start, naming the first, which is unharmed', async () => {
    const { ctr, daemon } = rig;
    await ctr.runDetached('guarded', ['/bin/sleep', '1000']);
    const task = await ctr.task('guarded');
    const [command, ...args] = daemon.commandLine();
    const elsewhere = args.map((arg) =>
      arg === daemon.address ? join(daemon.directory, 'second.sock') : arg,
    );
    for (const given of [args, elsewhere]) {
      const second = spawn(command as string, given, { stdio: ['ignore', 'pipe', 'pipe'] });
      let said = '';
      second.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
      second.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()));
      try {
        const [code] = (await soon('the second daemon ends', once(second, 'close'))) as [number | null];
        assert.notEqual(code, 0);
        assert.match(said, new RegExp(`\\b${daemon.pid}\\b`), 'it names the daemon that holds the directory');
        assert.ok(said.includes(daemon.root) || said.includes(daemon.state), said);
      } finally {
        second.kill('SIGKILL');
      }
    }
    assert.deepEqual(await ctr.task('guarded'), task);
    assert.equal((await ctr.exec('guarded', ['/bin/true'])).code, 0);
    await ctr.remove('guarded');
  });

  it('a stale socket file is taken over', async () => {
    const { daemon } = rig;
    await daemon.kill9();
    await daemon.start();
    assert.match(await rig.ctr.ok('version'), /Server:/);
  });
});

suite('configuration', { peers: ['moord'] }, (rig) => {
  it('an unknown key is refused, naming file and line', async () => {
    await assert.rejects(
      Daemon.start(rig.peer, { config: '[grpc]\nuid = 0\nnonsense = 1\n' }),
      /ended at start[\s\S]*config\.toml:4[\s\S]*nonsense|nonsense[\s\S]*line 4/,
    );
  });

  it('the sockets are for root only', () => {
    assert.equal(statSync(rig.daemon.address).mode & 0o777, 0o600);
    assert.equal(statSync(`${rig.daemon.address}.ttrpc`).mode & 0o777, 0o600);
    assert.equal(statSync(rig.daemon.root).mode & 0o026, 0);
    assert.equal(statSync(rig.daemon.state).mode & 0o026, 0);
  });
});

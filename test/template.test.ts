/** Shims forked from the template: processes of their own, which its death does not touch. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { it } from 'node:test';
import { Daemon } from './harness/daemon.ts';
import { expectNothingLeft, holdings } from './harness/leftovers.ts';
import { suite } from './harness/peers.ts';
import { commandLine, killProcess, processOf, processes, workingDirectory } from './harness/processes.ts';
import { eventually } from './harness/wait.ts';

const repository = resolve(import.meta.dirname, '..');
const FORK = '[shim]\nspawn = "fork"\n';

suite('the shim template', { peers: ['moord'], config: FORK }, (rig) => {
  const templateOf = (daemon: number) =>
    eventually('the template runs', () =>
      processes().find(({ pid, parent }) => parent === daemon && commandLine(pid).endsWith(' template')),
    );
  const parentOf = async (id: string, ctr = rig.ctr) =>
    processOf((await ctr.task(id))?.pid ?? 0)?.parent ?? 0;
  const session = (pid: number) => readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ')[3];

  it('forks shims that have nothing of the daemon or of each other', async () => {
    const { ctr, daemon } = rig;
    const template = await templateOf(daemon.pid);
    // The journal of events is opened with the first one.
    await ctr.run('first', ['/bin/true'], ['--rm']);
    const before = holdings(daemon);
    await ctr.runDetached('one', ['/bin/sleep', '1000']);
    await ctr.runDetached('two', ['/bin/sleep', '1000']);
    for (const id of ['one', 'two']) {
      const shim = await parentOf(id);
      assert.equal(processOf(shim)?.parent, template.pid, 'it was forked');
      assert.equal(session(shim), String(shim), 'it leads a session of its own');
      assert.equal(workingDirectory(shim), daemon.bundle(ctr.namespace, id));
      assert.match(commandLine(shim), new RegExp(`^moor-shim -namespace ${ctr.namespace} -id ${id} `));
      const files = readdirSync(`/proc/${shim}/fd`).map((fd) => readlinkSync(`/proc/${shim}/fd/${fd}`));
      assert.deepEqual(
        files.filter((file) => file.startsWith(daemon.root) || file.startsWith(daemon.log)),
        [],
        'it holds no file of the daemon',
      );
    }
    await ctr.remove('one');
    await ctr.remove('two');
    await expectNothingLeft(daemon, before);
  });

  it('is missed by nobody when it is killed: shims live on, new ones start, and another template comes', async () => {
    const { ctr, daemon } = rig;
    await ctr.runDetached('old', ['/bin/sleep', '1000']);
    const old = await ctr.task('old');
    const template = await templateOf(daemon.pid);
    await killProcess(template.pid);
    await ctr.runDetached('meanwhile', ['/bin/sleep', '1000']);
    assert.deepEqual(await ctr.task('old'), old);
    assert.equal((await ctr.exec('old', ['/bin/echo', 'here'])).stdout, 'here\n');
    const next = await templateOf(daemon.pid);
    assert.notEqual(next.pid, template.pid);
    await ctr.runDetached('new', ['/bin/sleep', '1000']);
    assert.equal(processOf(await parentOf('new'))?.parent, next.pid, 'shims are forked again');
    for (const id of ['old', 'meanwhile', 'new']) await ctr.remove(id);
  });

  it('keeps runc in memory, and takes up another one as soon as it is installed', async (t) => {
    const bin = mkdtempSync('/tmp/m-runc-');
    t.after(() => rmSync(bin, { recursive: true }));
    const [runc, calls] = [join(bin, 'runc'), join(bin, 'calls')];
    const original = execFileSync('/bin/sh', ['-c', 'command -v runc'], { encoding: 'utf8' }).trim();
    /** As package managers do it. */
    const install = (make: (path: string) => void): void => {
      make(`${runc}.new`);
      renameSync(`${runc}.new`, runc);
    };
    const wrapper = `#!/bin/sh\necho "$*" >> ${calls}\nexec ${original} "$@"\n`;
    install((path) => copyFileSync(original, path));
    await using daemon = await Daemon.start('moord', {
      config: FORK,
      env: { PATH: `${bin}:${process.env['PATH']}` },
    });
    const ctr = daemon.ctr();
    /** Whether the shim starts runc by the link to the copy. */
    const isSealed = (id: string) => readdirSync(daemon.bundle(ctr.namespace, id)).includes('runc');
    await templateOf(daemon.pid);

    await ctr.runDetached('old', ['/bin/sleep', '1000']);
    assert.ok(isSealed('old'));
    install((path) => writeFileSync(path, wrapper, { mode: 0o755 }));
    assert.equal((await ctr.exec('old', ['/bin/echo', 'here'])).stdout, 'here\n');
    assert.match(readFileSync(calls, 'utf8'), / exec .* old$/m);
    await ctr.runDetached('wrapped', ['/bin/sleep', '1000']);
    assert.match(readFileSync(calls, 'utf8'), / create .* wrapped$/m);
    assert.ok(!isSealed('wrapped'));
    assert.match(daemon.tail(), /runc is a script/);
    for (const id of ['old', 'wrapped']) await ctr.remove(id);
    assert.doesNotMatch(readFileSync(calls, 'utf8'), / delete /, 'ended containers are removed without it');
    assert.deepEqual(readdirSync(daemon.runcRoot(ctr.namespace)), []);
  });

  it('copies a runc that replaces another', async (t) => {
    const bin = mkdtempSync('/tmp/m-runc-');
    t.after(() => rmSync(bin, { recursive: true }));
    const runc = join(bin, 'runc');
    const original = execFileSync('/bin/sh', ['-c', 'command -v runc'], { encoding: 'utf8' }).trim();
    copyFileSync(original, runc);
    await using daemon = await Daemon.start('moord', {
      config: FORK,
      env: { PATH: `${bin}:${process.env['PATH']}` },
    });
    const ctr = daemon.ctr();
    await ctr.runDetached('old', ['/bin/sleep', '1000']);
    rmSync(runc);
    copyFileSync(original, runc);
    await ctr.runDetached('new', ['/bin/sleep', '1000']);
    assert.ok(readdirSync(daemon.bundle(ctr.namespace, 'new')).includes('runc'));
    assert.equal((await ctr.exec('new', ['/bin/echo', 'here'])).stdout, 'here\n');
    for (const id of ['old', 'new']) await ctr.remove(id);
  });

  it('is replaced when the code on disk is, and what runs by then runs on', async (t) => {
    const copy = mkdtempSync('/tmp/m-copy-');
    t.after(() => rmSync(copy, { recursive: true }));
    for (const folder of ['bin', 'dist', 'scripts', 'native/build'])
      cpSync(join(repository, folder), join(copy, folder), { recursive: true });
    symlinkSync(join(repository, 'node_modules'), join(copy, 'node_modules'));
    await using daemon = await Daemon.start('moord', { program: join(copy, 'bin/moord'), config: FORK });
    const ctr = daemon.ctr();
    const forkedBy = async (id: string) => processOf(await parentOf(id, ctr))?.parent;
    const template = await templateOf(daemon.pid);
    await ctr.runDetached('old', ['/bin/sleep', '1000']);
    assert.equal(await forkedBy('old'), template.pid);

    // As a package manager does it: the new file takes the old one's name.
    const code = join(copy, 'dist/shim.main.js');
    writeFileSync(`${code}.new`, `${readFileSync(code, 'utf8')}// a newer version\n`);
    renameSync(`${code}.new`, code);
    await ctr.runDetached('new', ['/bin/sleep', '1000']);
    const next = (await forkedBy('new')) ?? 0;
    assert.match(commandLine(next), / template$/);
    assert.notEqual(next, template.pid);
    await eventually('the old template ends', () => processOf(template.pid) === undefined);
    assert.equal((await ctr.exec('old', ['/bin/echo', 'here'])).stdout, 'here\n');
    for (const id of ['old', 'new']) await ctr.remove(id);
  });

  it('leaves nothing of its warm-up behind when it is killed in it', async () => {
    await using daemon = await Daemon.start('moord', { config: FORK });
    await eventually('the warm-up is at work', () => {
      const template = processes().find(({ parent }) => parent === daemon.pid);
      return template !== undefined && processes().some(({ parent }) => parent === template.pid);
    });
    for (const { pid } of processes().filter(({ parent }) => parent === daemon.pid)) await killProcess(pid);
    const standIn = join(daemon.state, 'warm-up/runtime');
    const left = () => processes().filter(({ pid }) => commandLine(pid).includes(standIn));
    await eventually('the stand-in runtime ends', () => left().length === 0);
    const ctr = daemon.ctr();
    await ctr.runDetached('one', ['/bin/sleep', '1000']);
    await ctr.remove('one');
  });

  it('ends with its daemon and leaves no zombie of a shim', async () => {
    const { ctr, daemon } = rig;
    const template = await templateOf(daemon.pid);
    for (let round = 0; round < 3; round += 1) await ctr.run(`brief-${round}`, ['/bin/true'], ['--rm']);
    await eventually('shims are reaped', () => !processes().some(({ parent }) => parent === template.pid));
    await daemon.kill9();
    await eventually('the template ends', () => processOf(template.pid) === undefined);
    await daemon.start();
  });
});

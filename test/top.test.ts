/** `moor top` and `moor metrics`: on a terminal, as a person sees it, and for programs. */
import assert from 'node:assert/strict';
import { join, resolve } from 'node:path';
import { after, before, describe as group, it } from 'node:test';
import { stripVTControlCharacters } from 'node:util';
import { spawn } from 'node-pty';
import type { Ctr } from './harness/ctr.ts';
import { Daemon } from './harness/daemon.ts';
import { Moor } from './harness/moor.ts';
import { Terminal } from './harness/terminal.ts';
import { eventually, soon } from './harness/wait.ts';

const PATIENT = { within: 60_000 };
const binary = join(resolve(import.meta.dirname, '..'), 'bin/moor');

interface Row {
  readonly id: string;
  readonly cpuPercent: number | null;
  readonly memory: number;
  readonly memoryLimit: number | null;
  readonly pids: number;
}

group('moor top', { timeout: 300_000 }, () => {
  let daemon: Daemon;
  let ctr: Ctr;
  let moor: Moor;
  before(async () => {
    daemon = await Daemon.start('moord');
    ctr = daemon.ctr();
    moor = new Moor(daemon, ctr.namespace);
    await ctr.runDetached('calm', ['/bin/sleep', '1000'], ['--memory-limit', String(64 << 20)]);
    await ctr.runDetached('burning', ['/bin/sh', '-c', 'while true; do :; done']);
  });
  after(async () => {
    for (const id of ['calm', 'burning']) await ctr?.remove(id);
    await daemon?.stop();
  });

  function terminal(...args: string[]): Terminal {
    const globals = ['--address', daemon.address, '--namespace', ctr.namespace];
    const env = { ...process.env, TERM: 'xterm' };
    return new Terminal(spawn(binary, [...globals, 'top', ...args], { cols: 100, rows: 24, env }));
  }

  it('shows the busiest first, live, and q gives the terminal back', async () => {
    const screen = terminal('-i', '300ms');
    await eventually('a screen of its own', () => screen.shown.includes('\x1b[?1049h\x1b[?25l'), PATIENT);
    await screen.sees(/CONTAINER +CPU % +MEMORY +LIMIT +MEM % +READ\/S +WRITE\/S +PIDS/, PATIENT);
    await screen.sees(/burning +\d+\.\d[^]*?calm +\d+\.\d +\S+ +64\.0MiB/, PATIENT);
    const frames = () => screen.shown.split('\x1b[?2026h').length - 1;
    const seen = frames();
    await eventually('another sample', () => frames() > seen + 1, PATIENT);
    screen.type('q');
    assert.equal(await soon('it ends', screen.exited(), PATIENT), 0);
    assert.ok(screen.shown.endsWith('\x1b[?25h\x1b[?1049l'));
    assert.ok(!screen.shown.includes('\x1b[2J'), 'the screen is never cleared as a whole');
  });

  it('follows the size of the terminal, and the keys', async () => {
    const screen = terminal('-i', '60s');
    await screen.sees(/by cpu[^]*burning/, PATIENT);
    screen.type('n');
    await screen.sees(/by name[^]*burning[^]*calm/, PATIENT);
    screen.resize(30, 3);
    await screen.sees(/… and 2 more/, PATIENT);
    const last = screen.shown.slice(screen.shown.lastIndexOf('\x1b[?2026h'));
    const lines = stripVTControlCharacters(last).split(/[\r\n]+/);
    assert.ok(lines.length <= 3 && lines.every((line) => line.length <= 30), JSON.stringify(lines));
    screen.type('\x03');
    assert.equal(await soon('it ends', screen.exited(), PATIENT), 0);
  });

  it('goes on when the daemon comes back', async () => {
    const screen = terminal('-i', '200ms');
    await screen.sees(/burning +\d/, PATIENT);
    await daemon.kill9();
    await daemon.start();
    const then = screen.shown.length;
    await eventually('a later sample', () => /burning +\d/.test(screen.shown.slice(then)), PATIENT);
    screen.kill('SIGTERM');
    assert.equal(await soon('it ends', screen.exited(), PATIENT), 0);
    assert.ok(screen.shown.endsWith('\x1b[?1049l'));
  });

  it('prints one plain sample where there is no terminal', async () => {
    const text = await moor.ok('top');
    assert.equal(stripVTControlCharacters(text), text);
    assert.match(text, /^CONTAINER +CPU %.*\nburning +\d+\.\d .*\ncalm +\d+\.\d .*\n$/);
    assert.match(await moor.ok('top', '--once', 'calm'), /^CONTAINER.*\ncalm .*\n$/);
  });

  it('prints JSON', async () => {
    const rows = JSON.parse(await moor.ok('top', '--once', '--json', '--sort', 'name')) as Row[];
    assert.deepEqual(
      rows.map(({ id, pids, memoryLimit }) => [id, pids, memoryLimit]),
      [
        ['burning', 1, null],
        ['calm', 1, 64 << 20],
      ],
    );
    assert.ok((rows[0]?.cpuPercent ?? 0) > (rows[1]?.cpuPercent ?? 0));
  });

  it('refuses what is no interval and no column', async () => {
    assert.notEqual((await moor.call(['top', '-i', '1ms'])).code, 0);
    assert.match((await moor.call(['top', '--sort', 'colour'])).stderr, /cpu, memory, io, pids, name/);
  });

  it('metrics are those of one container, or of all', async () => {
    assert.match(await moor.ok('metrics', 'calm'), /pids\.current +1\b/);
    const all = await moor.ok('metrics');
    assert.match(
      all,
      /^CONTAINER +CPU +MEMORY +LIMIT +READ +WRITTEN +PIDS\s*\nburning .*\ncalm +.* 64\.0MiB .*\n$/,
    );
    const json = JSON.parse(await moor.ok('metrics', '--format', 'json')) as { id: string; pids: object }[];
    assert.deepEqual(
      json.map(({ id, pids }) => [id, pids]),
      [
        ['burning', { current: 1 }],
        ['calm', { current: 1 }],
      ],
    );
    assert.notEqual((await moor.call(['metrics', 'nobody'])).code, 0);
  });
});

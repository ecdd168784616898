import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { spawn } from 'node-pty';
import { Terminal } from '../test/harness/terminal.ts';

const module = JSON.stringify(join(import.meta.dirname, 'password.ts'));

test('a password that is typed the moment the question is there is not shown', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'moor-password-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const script = join(directory, 'ask.ts');
  writeFileSync(
    script,
    `import { askPassword } from ${module};
     // The terminal has seen the question once it is written: as if somebody were quick.
     const write = process.stderr.write.bind(process.stderr);
     process.stderr.write = (text) => {
       if (String(text).includes('Password')) write(process.stdin.isRaw ? '[silent]' : '[echoes]');
       return write(text);
     };
     const password = await askPassword('Password');
     process.stdout.write('got ' + password.length + '\\n');`,
  );
  const terminal = new Terminal(
    spawn(process.execPath, ['--disable-warning=ExperimentalWarning', script], {}),
  );
  t.after(() => terminal.kill());
  await terminal.sees(/Password: /, { within: 30_000 });
  assert.match(terminal.shown, /\[silent\]/);
  terminal.type('tides\r');
  await terminal.sees(/got 5/, { within: 30_000 });
  assert.doesNotMatch(terminal.shown, /tides/);
  assert.equal(await terminal.exited(), 0);
});

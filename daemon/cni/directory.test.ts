import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { pino } from 'pino';
import { Code, isCode } from '../../ttrpc/errors.ts';
import { type Configuration, ConfigurationDirectory } from './directory.ts';
import { isAtLeast, parseNetworkList } from './network-list.ts';

const parent = mkdtempSync('/tmp/md-');
after(() => rmSync(parent, { recursive: true, force: true }));

const conf = (name: string): string =>
  JSON.stringify({ cniVersion: '1.0.0', name, plugins: [{ type: 'loopback' }] });

test('configurations are read in the order of their files, and again when they change', async () => {
  const path = join(parent, 'net.d');
  let changed = Promise.withResolvers<Configuration>();
  const directory = new ConfigurationDirectory(path, pino({ level: 'silent' }), (now) =>
    changed.resolve(now),
  );
  const change = async (action: () => void): Promise<string[]> => {
    changed = Promise.withResolvers<Configuration>();
    action();
    return (await changed.promise).lists.map(({ name }) => name);
  };
  try {
    assert.deepEqual(directory.current, { lists: [], problems: [] });
    assert.deepEqual(await change(() => writeFileSync(join(path, '20-b.conflist'), conf('b'))), ['b']);
    assert.deepEqual(await change(() => writeFileSync(join(path, '10-a.conf'), conf('a'))), ['a', 'b']);
    const other = join(parent, 'new');
    writeFileSync(other, conf('c'));
    assert.deepEqual(await change(() => renameSync(other, join(path, '10-a.conf'))), ['c', 'b']);
    assert.deepEqual(await change(() => writeFileSync(join(path, '20-b.conflist'), '{')), ['c']);
    assert.match(directory.current.problems[0]!, /20-b\.conflist: not JSON/);
    assert.deepEqual(await change(() => rmSync(path, { recursive: true })), []);
    // A directory that was replaced is watched as well.
    mkdirSync(path, { recursive: true });
    assert.deepEqual(await change(() => writeFileSync(join(path, '1.json'), conf('d'))), ['d']);
  } finally {
    directory.close();
  }
});

test('what is no configuration is refused, and the file is named', () => {
  for (const [text, why] of [
    ['[]', 'not an object'],
    ['{"plugins":[{"type":"x"}]}', 'no name'],
    ['{"name":"../x","type":"x"}', 'no name'],
    ['{"name":"x","plugins":[]}', 'no plugins'],
    ['{"name":"x","plugins":[{}]}', 'no type'],
    ['{"name":"x","type":"../bin/sh"}', 'no type'],
    ['{"name":"x","type":".."}', '.. is no plugin'],
    ['{"name":"x","type":"x","cniVersion":"one"}', 'cniVersion'],
    ['{"name":"x","type":"x","disableCheck":"yes"}', 'disableCheck'],
  ] as const) {
    assert.throws(
      () => parseNetworkList(text, '/etc/x.conf'),
      (error) =>
        isCode(error, Code.InvalidArgument) &&
        error.message.includes('/etc/x.conf') &&
        error.message.includes(why),
      text,
    );
  }
  assert.equal(parseNetworkList('{"name":"x","type":"x"}', '').cniVersion, '0.1.0');
});

test('versions are compared by their numbers', () => {
  assert.ok(isAtLeast('0.4.0', '0.4.0'));
  assert.ok(isAtLeast('0.10.0', '0.4.0'));
  assert.ok(isAtLeast('1.0.0', '0.4.0'));
  assert.ok(!isAtLeast('0.3.1', '0.4.0'));
});

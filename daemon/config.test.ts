import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import {
  ConfigError,
  defaultConfig,
  formatConfig,
  loadConfig,
  parseConfig,
  timeout,
  ttrpcAddress,
} from './config.ts';

const refused = (toml: string, message: string): void =>
  assert.throws(
    () => parseConfig(toml, 'moor.toml'),
    (error) => {
      assert.ok(error instanceof ConfigError, String(error));
      assert.equal(error.message, message);
      return true;
    },
  );

test('an empty file says what the defaults say', () => {
  assert.deepEqual(parseConfig('', 'x'), defaultConfig());
  const { root, state, grpc, debug } = defaultConfig();
  assert.deepEqual(
    [root, state, grpc.address, debug.level],
    ['/var/lib/moor', '/run/moor', '/run/moor/moor.sock', 'info'],
  );
  assert.equal(grpc.max_recv_message_size, 16777216);
});

test('what is printed reads back to the same', () => {
  const config = parseConfig(
    'oom_score = -5\n[grpc]\ngid = 7\n[timeouts]\n"moor.timeout.shutdown" = "1m30s"',
    'x',
  );
  assert.deepEqual(parseConfig(formatConfig(config), 'x'), config);
  assert.deepEqual(parseConfig(formatConfig(defaultConfig()), 'x'), defaultConfig());
});

test("containerd's keys have their meaning", () => {
  const config = parseConfig(
    `version = 2
root = "/r"
state = "/s"
oom_score = -999
disabled_plugins = ["io.containerd.grpc.v1.leases"]
[grpc]
  address = "/a"
  uid = 1
  gid = 2
  max_recv_message_size = 1048576
[debug]
  level = "trace"
`,
    'x',
  );
  assert.deepEqual(
    [config.root, config.state, config.oom_score, config.grpc.uid, config.grpc.gid],
    ['/r', '/s', -999, 1, 2],
  );
  assert.deepEqual(config.disabled_plugins, ['io.containerd.grpc.v1.leases']);
  assert.equal(ttrpcAddress(config), '/a.ttrpc');
  assert.equal(ttrpcAddress({ ...config, ttrpc: { ...config.ttrpc, address: '/t' } }), '/t');
});

test('what nobody knows is refused, with its line', () => {
  refused('# x\nroot = "/r"\n\nrooot = "/r"\n', 'moor.toml:4: unknown key rooot');
  refused('[grpc]\naddress = "/a"\nadress = "/b"\n', 'moor.toml:3: unknown key grpc.adress');
  refused('root = "/r"\n[metricks]\naddress = ""\n', 'moor.toml:2: unknown key metricks');
  refused('x = [\n  1,\n  2,\n]\n', 'moor.toml:1: unknown key x');
  refused('grpc = { address = "/a", x = 1 }', 'moor.toml:1: unknown key grpc.x');
});

test('what is of the wrong kind is refused, with its line', () => {
  refused('\nroot = 5', 'moor.toml:2: root must be a string, not 5');
  refused('oom_score = "x"', 'moor.toml:1: oom_score must be an integer, not "x"');
  refused('oom_score = 1.5', 'moor.toml:1: oom_score must be an integer, not 1.5');
  refused('oom_score = 1001', 'moor.toml:1: oom_score must be between -1000 and 1000, not 1001');
  refused('grpc = "x"', 'moor.toml:1: grpc must be a table, not "x"');
  refused(
    '[debug]\n\nlevel = "loud"',
    'moor.toml:3: debug.level must be one of trace, debug, info, warn, error, fatal, panic, not "loud"',
  );
  refused('disabled_plugins = "x"', 'moor.toml:1: disabled_plugins must be an array of plugin URIs, not "x"');
  refused(
    'disabled_plugins = ["cri"]',
    'moor.toml:1: disabled_plugins holds "cri", which is not a plugin URI',
  );
  refused('version = 1', 'moor.toml:1: version must be between 2 and 3, not 1');
  refused(
    '[timeouts]\n"moor.timeout.shutdown" = "soon"',
    'moor.toml:2: timeouts."moor.timeout.shutdown" must be a duration such as "2s", not "soon"',
  );
  refused('root = 2020-01-01', 'moor.toml:1: root must be a string, not a date');
});

test('what is no TOML is refused, with its line', () => {
  assert.throws(
    () => parseConfig('root = "/r"\nstate = \n', 'moor.toml'),
    /^ConfigError: moor\.toml:2: Invalid TOML document/,
  );
});

test('flags have the last word', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'moor-config-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'config.toml');
  writeFileSync(path, 'root = "/r"\nstate = "/s"\n[grpc]\naddress = "/a"\n[debug]\nlevel = "warn"\n');
  assert.equal(loadConfig(path, {}).root, '/r');
  const config = loadConfig(path, { root: '/r2', address: '/a2', logLevel: 'debug' });
  assert.deepEqual(
    [config.root, config.state, config.grpc.address, config.debug.level],
    ['/r2', '/s', '/a2', 'debug'],
  );
  assert.throws(
    () => loadConfig(path, { root: 'relative' }),
    /^ConfigError: root must be an absolute path, not "relative"/,
  );
  assert.throws(() => loadConfig(path, { root: '/s' }), /root and state must be different directories/);
  assert.throws(() => loadConfig(path, { logLevel: 'loud' }), /--log-level must be one of/);
  assert.throws(
    () => loadConfig(join(directory, 'missing'), {}),
    /cannot read the configuration: ENOENT.*missing/,
  );
});

test('durations are read as Go writes them', () => {
  const read = (text: string): number =>
    timeout(parseConfig(`[timeouts]\n"moor.timeout.shutdown" = "${text}"`, 'x'), 'moor.timeout.shutdown');
  assert.equal(read('5s'), 5000);
  assert.equal(read('1h2m3.5s'), 3_723_500);
  assert.equal(read('250ms'), 250);
  assert.equal(read('0'), 0);
  assert.equal(read('1500us'), 1.5);
  assert.equal(read('1500µs'), 1.5);
});

test("containerd's plugin tables are read, and what asks for what is not there is refused", () => {
  const config = parseConfig(
    `version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
temp = "/t"
imports = []
[debug]
  level = ""
  format = "json"
[cgroup]
  path = ""
[timeouts]
  "io.containerd.timeout.shim.load" = "5s"
[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    enable_selinux = true
  [plugins."io.containerd.snapshotter.v1.devmapper"]
    root_path = ""
    async_remove = false
  [plugins."io.containerd.snapshotter.v1.overlayfs"]
    root_path = "/o"
    mount_options = ["userxattr"]
    upperdir_label = true
  [plugins."io.containerd.runtime.v2.task"]
    platforms = ["linux/amd64"]
    sched_core = false
`,
    'x',
  );
  assert.equal(config.debug.level, 'info');
  const overlay = config.plugins['io.containerd.snapshotter.v1.overlayfs'];
  assert.deepEqual(overlay, {
    root_path: '/o',
    mount_options: ['userxattr'],
    upperdir_label: true,
    sync_remove: false,
  });
  assert.deepEqual(config.plugins['io.containerd.runtime.v2.task'].platforms, ['linux/amd64']);
  assert.equal(config.plugins['io.containerd.gc.v1.scheduler'].mutation_threshold, 100);
  assert.deepEqual(parseConfig(formatConfig(config), 'x'), config);

  const at = (uri: string, line: string): string => `[plugins]\n\n[plugins."${uri}"]\n${line}\n`;
  refused(
    at('io.containerd.snapshotter.v1.overlayfs', 'slow_chown = true'),
    'moor.toml:4: plugins."io.containerd.snapshotter.v1.overlayfs".slow_chown is not supported: files are never given other owners by copying',
  );
  refused(
    at('io.containerd.snapshotter.v1.devmapper', 'pool_name = "p"'),
    'moor.toml:4: there is no plugin io.containerd.snapshotter.v1.devmapper that could be set up; disable it or leave this out',
  );
  refused(
    at('io.containerd.gc.v1.scheduler', 'pause_treshold = 0.1'),
    'moor.toml:4: unknown key plugins."io.containerd.gc.v1.scheduler".pause_treshold',
  );
  refused(
    at('io.containerd.gc.v1.scheduler', 'startup_delay = 5'),
    'moor.toml:4: plugins."io.containerd.gc.v1.scheduler".startup_delay must be a duration such as "2s", not 5',
  );
  refused('imports = ["/x"]', 'moor.toml:1: imports is not supported: write everything into one file');
});

test('proxy plugins have an address and one of three types', () => {
  const { proxy_plugins: proxies } = parseConfig(
    `[proxy_plugins.lazy]
type = "io.containerd.snapshotter.v1"
address = "unix:///run/lazy.sock"
platform = "linux/arm64/v8"
capabilities = ["remap-ids"]
[proxy_plugins.lazy.exports]
root = "/var/lib/lazy"
`,
    'x',
  );
  assert.deepEqual(proxies.lazy, {
    type: 'snapshot',
    address: '/run/lazy.sock',
    platform: 'linux/arm64/v8',
    exports: { root: '/var/lib/lazy' },
    capabilities: ['remap-ids'],
    timeout: '10s',
    work_timeout: '10m',
  });
  const table = (...lines: string[]): string => ['[proxy_plugins.x]', ...lines].join('\n');
  refused(
    table('type = "diff"'),
    'moor.toml:1: proxy_plugins.x.address must be the path of a unix socket, not ""',
  );
  refused(
    table('type = "diff"', 'address = "x.sock"'),
    'moor.toml:3: proxy_plugins.x.address must be the absolute path of a unix socket, not "x.sock"',
  );
  refused(
    table('address = "/x"', 'type = "sandbox"'),
    'moor.toml:3: proxy_plugins.x.type must be one of snapshot, content, diff, not "sandbox"',
  );
});

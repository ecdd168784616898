/** Debian's CNI plugins, in a network namespace of this process's own in the place of the host's. */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { pino } from 'pino';
import { constants, unshare } from '../../native/native.ts';
import { Code, isCode } from '../../ttrpc/errors.ts';
import { isNamespace, makeNamespace, removeNamespace } from '../network/netns.ts';
import { Cni } from './cni.ts';
import { parseNetworkList } from './network-list.ts';
import type { Attachment } from './plugin.ts';
import { resultOf } from './result.ts';

unshare(constants.CLONE_NEWNET);
execFileSync('ip', ['link', 'set', 'lo', 'up']);

const directory = mkdtempSync('/tmp/mc-');
const log = pino({ level: 'silent' });
const open = (plugins = ['/usr/lib/cni']): Promise<Cni> =>
  Cni.open({ plugins, cache: join(directory, 'cache'), lock: join(directory, 'lock'), log });
let cni = await open();

const made: string[] = [];
after(() => {
  for (const path of made) removeNamespace(path);
  rmSync(directory, { recursive: true, force: true });
});

const netns = (name: string): string => {
  const path = join(directory, 'netns', name);
  makeNamespace(path);
  made.push(path);
  return path;
};

const listOf = (extra: object = {}, ...more: object[]) =>
  parseNetworkList(
    JSON.stringify({
      cniVersion: '1.0.0',
      name: 'net',
      plugins: [
        {
          type: 'bridge',
          bridge: 'cni0',
          isGateway: true,
          hairpinMode: true,
          ipam: {
            type: 'host-local',
            dataDir: join(directory, 'ipam'),
            ranges: [[{ subnet: '10.66.0.0/24' }]],
            routes: [{ dst: '0.0.0.0/0' }],
          },
        },
        ...more,
      ],
      ...extra,
    }),
    'test',
  );

const addresses = (path: string): string =>
  execFileSync('nsenter', [`--net=${path}`, 'ip', '-br', 'address'], { encoding: 'utf8' });
const given = (): string[] =>
  readdirSync(join(directory, 'ipam/net')).filter((name) => /^\d+\.\d+/.test(name));
const links = (): string => execFileSync('ip', ['-br', 'link'], { encoding: 'utf8' });

test('a container is attached, checked and detached, and nothing of it stays', async () => {
  const list = listOf({}, { type: 'portmap', capabilities: { portMappings: true } });
  await cni.validate(list);
  const path = netns('a');
  const attachment: Attachment = {
    containerId: 'a1',
    netns: path,
    ifName: 'eth0',
    capabilities: {
      portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }],
      dns: { x: 'not asked for' },
    },
  };
  const result = await cni.add(list, attachment);
  assert.equal(result.ips[0]?.address, '10.66.0.2/24');
  assert.equal(result.ips[0]?.gateway, '10.66.0.1');
  assert.deepEqual(result.routes, [{ dst: '0.0.0.0/0' }]);
  const inside = result.interfaces[result.ips[0]?.interface ?? -1];
  assert.deepEqual([inside?.name, inside?.sandbox], ['eth0', path]);
  assert.match(addresses(path), /^eth0@\S+ +UP +10\.66\.0\.2\/24/m);

  const server = spawn(
    'nsenter',
    [`--net=${path}`, 'busybox', 'nc', '-l', '-p', '80', '-e', 'echo', 'served'],
    {
      stdio: 'ignore',
    },
  );
  try {
    assert.equal(await answer('10.66.0.1', 8080), 'served\n');
  } finally {
    server.kill('SIGKILL');
  }

  // What another daemon finds.
  cni.close();
  cni = await open();
  assert.deepEqual(cni.attachments('a1'), [{ network: 'net', attachment, result }]);
  assert.deepEqual(cni.attachments('other'), []);
  await assert.rejects(cni.add(list, attachment), /attached to CNI network net already/);

  await cni.remove(list, attachment);
  assert.deepEqual(cni.attachments(), []);
  assert.deepEqual(given(), []);
  assert.doesNotMatch(links(), /veth/);
  assert.doesNotMatch(execFileSync('iptables-save', { encoding: 'utf8' }), /a1/);
  await cni.remove(list, attachment);
  await assert.rejects(cni.check(list, attachment), (error) => isCode(error, Code.NotFound));
});

test('an attachment that somebody has changed is found out', async () => {
  // Without portmap, whose CHECK asks for rules of IPv6 that its ADD has not made (1.1.1).
  const list = listOf();
  const path = netns('h');
  const attachment = { containerId: 'h1', netns: path, ifName: 'eth0' };
  await cni.add(list, attachment);
  await cni.check(list, attachment);
  execFileSync('nsenter', [`--net=${path}`, 'ip', 'address', 'flush', 'dev', 'eth0']);
  await assert.rejects(cni.check(list, attachment), /^RpcError: CNI plugin bridge: CHECK: /);
  await cni.remove(list, attachment);
});

test('the loopback plugin and a configuration of a single plugin', async () => {
  const list = parseNetworkList('{"cniVersion":"0.4.0","name":"lo","type":"loopback"}', 'lo.conf');
  const path = netns('lo');
  const attachment = { containerId: 'l1', netns: path, ifName: 'lo' };
  assert.equal((await cni.add(list, attachment)).ips[0]?.address, '127.0.0.1/8');
  assert.match(addresses(path), /^lo +UNKNOWN +127\.0\.0\.1\/8/m);
  await cni.remove(list, attachment);
});

test('when a plugin fails, those before it are undone', async () => {
  const list = listOf({}, { type: 'fails' });
  const plugins = join(directory, 'plugins');
  mkdirSync(plugins);
  const answer = '{"cniVersion":"1.0.0","code":11,"msg":"not now","details":"perhaps later"}';
  const cannot = join(directory, 'cannot-undo');
  const script = `#!/bin/sh\n[ "$CNI_COMMAND" = ADD -o -e ${cannot} ] || exit 0\necho '${answer}'\nexit 1\n`;
  writeFileSync(join(plugins, 'fails'), script, { mode: 0o755 });
  cni.close();
  cni = await open([plugins, '/usr/lib/cni']);
  const path = netns('f');
  await assert.rejects(
    cni.add(list, { containerId: 'f1', netns: path, ifName: 'eth0' }),
    (error) =>
      isCode(error, Code.Unavailable) &&
      /^CNI plugin fails: ADD: not now; perhaps later$/.test(error.message),
  );
  assert.deepEqual(given(), []);
  assert.doesNotMatch(addresses(path), /eth0/);
  // What cannot be undone stays known, and is undone when it can be.
  writeFileSync(cannot, '');
  await assert.rejects(cni.add(list, { containerId: 'f1', netns: path, ifName: 'eth0' }), /not now/);
  assert.equal(given().length, 1);
  assert.deepEqual(cni.attachments(), []);
  rmSync(cannot);
  await cni.recover();
  assert.deepEqual(given(), []);
  await assert.rejects(
    cni.add(listOf({}, { type: 'nowhere' }), { containerId: 'f1', netns: path, ifName: 'eth0' }),
    (error) => isCode(error, Code.NotFound) && error.message.includes('"nowhere" is not in'),
  );
  assert.deepEqual(given(), []);
  assert.doesNotMatch(links(), /veth/);
});

test('what a killed daemon had begun is undone after its plugins have ended', async () => {
  const plugins = join(directory, 'slow');
  mkdirSync(plugins);
  // Does the work of the bridge plugin after a while, whoever has been killed meanwhile.
  writeFileSync(join(plugins, 'bridge'), '#!/bin/sh\nsleep 1\nexec /usr/lib/cni/bridge\n', { mode: 0o755 });
  const path = netns('k');
  const program = join(directory, 'daemon.ts');
  const here = import.meta.dirname;
  writeFileSync(
    program,
    `import { Cni } from '${here}/cni.ts';
     const log = { warn() {} };
     const options = ${JSON.stringify({ plugins: [plugins, '/usr/lib/cni'], cache: join(directory, 'cache'), lock: join(directory, 'lock') })};
     const cni = await Cni.open({ ...options, log });
     const adding = cni.add(${JSON.stringify(listOf())}, { containerId: 'k1', netns: '${path}', ifName: 'eth0' });
     setTimeout(() => process.kill(process.pid, 'SIGKILL'), 300);
     await adding;`,
  );
  cni.close();
  const daemon = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', program], {
    stdio: 'inherit',
  });
  const [, signal] = (await once(daemon, 'exit')) as [number | null, string | null];
  assert.equal(signal, 'SIGKILL');
  cni = await open();
  // It waited, so the plugin has done its work.
  assert.match(addresses(path), /10\.66\.0\./);
  await cni.recover();
  assert.doesNotMatch(addresses(path), /eth0/);
  assert.deepEqual(given(), []);
  assert.deepEqual(cni.attachments(), []);
});

test('a network namespace that is gone can still be detached', async () => {
  const list = listOf();
  const path = netns('g');
  await cni.add(list, { containerId: 'g1', netns: path, ifName: 'eth0' });
  assert.equal(given().length, 1);
  removeNamespace(path);
  assert.equal(isNamespace(path), false);
  await cni.remove(list, { containerId: 'g1', netns: '', ifName: 'eth0' });
  assert.deepEqual(given(), []);
});

test('the cache is libcni’s', async () => {
  const list = listOf();
  const attachment = {
    containerId: 'c1',
    netns: netns('c'),
    ifName: 'eth0',
    args: [
      ['IgnoreUnknown', '1'],
      ['K8S_POD_NAME', 'p'],
    ] as const,
  };
  await cni.add(list, attachment);
  const cached = JSON.parse(readFileSync(join(directory, 'cache/results/net-c1-eth0'), 'utf8')) as Record<
    string,
    unknown
  >;
  assert.equal(cached['kind'], 'cniCacheV1');
  assert.deepEqual(
    [cached['containerId'], cached['ifName'], cached['networkName'], cached['netns'], cached['cniArgs']],
    ['c1', 'eth0', 'net', attachment.netns, attachment.args],
  );
  assert.equal((cached['result'] as Record<string, unknown>)['cniVersion'], '1.0.0');
  await cni.remove(list, attachment);
});

test('what cannot be is refused before a plugin is run', async () => {
  const list = listOf();
  const attachment = { containerId: 'x', netns: '/x', ifName: 'eth0' };
  for (const wrong of [
    { containerId: '../x' },
    { ifName: 'a/b' },
    { netns: '' },
    { args: [['a', 'b;c']] as const },
  ])
    await assert.rejects(cni.add(list, { ...attachment, ...wrong }), (error) =>
      isCode(error, Code.InvalidArgument),
    );
  await assert.rejects(
    cni.validate(listOf({ cniVersion: '9.0.0' })),
    /bridge does not speak version 9\.0\.0 of network net, but 0\.1\.0/,
  );
  cni.close();
});

test('results of old versions are read', () => {
  const ip4 = { ip: '10.0.0.2/24', gateway: '10.0.0.1', routes: [{ dst: '0.0.0.0/0' }] };
  assert.deepEqual(resultOf({ cniVersion: '0.2.0', ip4, dns: { nameservers: ['10.0.0.53'] } }), {
    interfaces: [],
    ips: [{ address: '10.0.0.2/24', gateway: '10.0.0.1' }],
    routes: [{ dst: '0.0.0.0/0' }],
    dns: { nameservers: ['10.0.0.53'] },
  });
});

/** What comes out of a connection; tried until somebody listens. */
async function answer(host: string, port: number): Promise<string> {
  for (let attempt = 0; attempt < 600; attempt += 1) {
    const text = await new Promise<string>((resolve) => {
      let got = '';
      const socket = connect({ host, port, timeout: 5000 });
      socket.on('data', (chunk) => {
        got += chunk.toString();
      });
      socket.on('error', () => resolve(''));
      socket.on('timeout', () => socket.destroy());
      socket.on('close', () => resolve(got));
    });
    if (text !== '') return text;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return '';
}

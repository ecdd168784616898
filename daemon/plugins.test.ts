import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pino } from 'pino';
import { IntrospectionDefinition } from '../proto/gen/containerd/services/introspection.ts';
import { RuntimeInfo, RuntimeRequest } from '../proto/gen/containerd/types/runtime_info.ts';
import { Code, isCode } from '../ttrpc/errors.ts';
import type { CallContext, ServiceImplementation } from '../ttrpc/service.ts';
import { type Config, parseConfig } from './config.ts';
import { LoadedPlugins, checkPluginNames } from './loaded-plugins.ts';
import { messageAny } from './distribution/any.ts';
import type { Core } from './plugins.ts';
import { Proxies } from './proxy/proxies.ts';

const log = pino({ level: 'silent' });
const context: CallContext = { signal: new AbortController().signal, metadata: new Map() };

/** Services are made from the core, not used here. */
const core = async (config: Config): Promise<Core> =>
  ({
    config,
    proxies: await Proxies.open(config),
    metadata: {},
    networking: {},
    identity: { uuid: 'u', pid: 7, pidns: 8n },
  }) as unknown as Core;

const introspection = (loaded: LoadedPlugins): ServiceImplementation<typeof IntrospectionDefinition> =>
  loaded.services.find(({ definition }) => definition.fullName === IntrospectionDefinition.fullName)!
    .implementation as unknown as ServiceImplementation<typeof IntrospectionDefinition>;

const list = async (loaded: LoadedPlugins, ...filters: string[]): Promise<string[]> => {
  const { plugins } = await introspection(loaded).plugins({ filters }, context);
  return plugins!.map(({ type, id }) => `${type}.${id}`);
};

test('clients find every plugin, by type and id', async () => {
  const loaded = new LoadedPlugins(await core(parseConfig('root = "/r"\nstate = "/s"', 'x')), log);
  assert.deepEqual(await list(loaded, 'type==io.containerd.runtime.v2'), ['io.containerd.runtime.v2.task']);
  assert.deepEqual(await list(loaded, 'id==bolt', 'id==version'), [
    'io.containerd.metadata.v1.bolt',
    'io.containerd.grpc.v1.version',
  ]);
  const { plugin } = await introspection(loaded).pluginInfo(
    { type: 'io.containerd.runtime.v2', id: 'task' },
    context,
  );
  assert.deepEqual(plugin!.exports, { root: '/r', state: '/s/tasks' });
  assert.equal(plugin!.platforms![0]!.os, 'linux');
  await assert.rejects(
    introspection(loaded).pluginInfo({ type: 'x', id: 'y' }, context),
    (error) => isCode(error, Code.NotFound) && error.message === 'plugin x.y: not found',
  );
});

test('a disabled plugin is not there', async () => {
  const loaded = new LoadedPlugins(
    await core(parseConfig('disabled_plugins = ["io.containerd.grpc.v1.leases"]', 'x')),
    log,
  );
  assert.deepEqual(await list(loaded, 'id==leases'), []);
  assert.equal(loaded.serves('containerd.services.leases.v1.Leases'), false);
  assert.equal(loaded.serves('containerd.services.namespaces.v1.Namespaces'), true);
});

test('a plugin that fails is reported, unless it is required', async () => {
  const broken = async (toml: string): Promise<Core> => {
    const whole = await core(parseConfig(toml, 'x'));
    return Object.defineProperty({ ...whole }, 'metadata', {
      get: () => {
        throw new Error('out of order');
      },
    });
  };
  const loaded = new LoadedPlugins(await broken(''), log);
  const { plugins } = await introspection(loaded).plugins({ filters: ['id==leases'] }, context);
  assert.deepEqual(plugins![0]!.initErr, { code: Code.Unknown, message: 'out of order' });
  assert.equal(loaded.serves('containerd.services.leases.v1.Leases'), false);
  const required = await broken('required_plugins = ["io.containerd.grpc.v1.leases"]');
  assert.throws(
    () => new LoadedPlugins(required, log),
    /^Error: required plugin io\.containerd\.grpc\.v1\.leases: out of order$/,
  );
});

test('what is required must not be disabled', () => {
  const uri = 'io.containerd.grpc.v1.leases';
  assert.throws(
    () => checkPluginNames(parseConfig(`disabled_plugins = ["${uri}"]\nrequired_plugins = ["${uri}"]`, 'x')),
    /^Error: required_plugins: io\.containerd\.grpc\.v1\.leases is disabled$/,
  );
});

test('plugins of other processes are told of as they are, and may be disabled or be missed', async () => {
  const toml = `disabled_plugins = ["io.containerd.snapshotter.v1.off"]
[proxy_plugins.away]
type = "snapshot"
address = "/nowhere/x.sock"
platform = "linux/arm64/v8"
capabilities = ["lazy"]
[proxy_plugins.off]
type = "snapshot"
address = "/nowhere/y.sock"
`;
  const config = parseConfig(toml, 'x');
  checkPluginNames(config);
  const whole = await core(config);
  const loaded = new LoadedPlugins(whole, log);
  assert.deepEqual(await list(loaded, 'id==off'), []);
  const about = async () => {
    const { plugins } = await introspection(loaded).plugins({ filters: ['id==away'] }, context);
    return plugins![0]!;
  };
  const { platforms, capabilities, exports, initErr } = await about();
  assert.deepEqual(platforms, [{ os: 'linux', architecture: 'arm64', variant: 'v8' }]);
  assert.deepEqual([capabilities, exports], [['lazy'], { address: '/nowhere/x.sock' }]);
  assert.equal(initErr, undefined);
  await assert.rejects(whole.proxies.of('snapshot')[0]!.check(), (error) => isCode(error, Code.Unavailable));
  assert.equal((await about()).initErr!.code, Code.Unavailable);
  whole.proxies.close();

  const required = await Proxies.open({ ...config, required_plugins: ['io.containerd.snapshotter.v1.away'] });
  await assert.rejects(
    required.check(log),
    /^Error: required plugin io\.containerd\.snapshotter\.v1\.away: plugin away: cannot connect to \/nowhere\/x\.sock/,
  );
  required.close();
  assert.throws(
    () => checkPluginNames(parseConfig('[proxy_plugins.native]\ntype = "snapshot"\naddress = "/x"', 'x')),
    /^Error: proxy_plugins\.native: there is a plugin io\.containerd\.snapshotter\.v1\.native already$/,
  );
});

test('runtimes tell of themselves by their names, and what is no runtime is refused', async () => {
  const loaded = new LoadedPlugins(await core(parseConfig('', 'x')), log);
  const ask = async (runtimePath: string) => {
    const options = messageAny('containerd.types.RuntimeRequest', RuntimeRequest, { runtimePath });
    const request = { type: 'io.containerd.runtime.v2', id: 'task', options };
    const { extra } = await introspection(loaded).pluginInfo(request, context);
    assert.equal(extra!.typeUrl, 'containerd.types.RuntimeInfo');
    return RuntimeInfo.decode(extra!.value!);
  };
  const { name, version, features } = await ask('io.containerd.runc.v2');
  assert.equal(name, 'io.containerd.moor.v1');
  assert.match(version!.version, /^\d+\./);
  if (features !== undefined) assert.ok((JSON.parse(features.value.toString()) as object) instanceof Object);
  await assert.rejects(ask('/nowhere/shim'), (error) => isCode(error, Code.InvalidArgument));
  await assert.rejects(ask('io.containerd.nope.v7'), (error) => isCode(error, Code.NotFound));
  const other = { type: 'io.containerd.grpc.v1', id: 'leases', options: messageAny('x', RuntimeRequest, {}) };
  await assert.rejects(introspection(loaded).pluginInfo(other, context), (error) =>
    isCode(error, Code.Unimplemented),
  );
});

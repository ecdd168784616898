import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pino } from 'pino';
import { IntrospectionDefinition } from '../proto/gen/containerd/services/introspection.ts';
import { Code, isCode } from '../ttrpc/errors.ts';
import type { CallContext, ServiceImplementation } from '../ttrpc/service.ts';
import { type Config, parseConfig } from './config.ts';
import { LoadedPlugins, checkPluginNames } from './loaded-plugins.ts';
import type { Core } from './plugins.ts';

const log = pino({ level: 'silent' });
const context: CallContext = { signal: new AbortController().signal, metadata: new Map() };

/** Services are made from the core, not used here. */
const core = (config: Config): Core =>
  ({ config, metadata: {}, networking: {}, identity: { uuid: 'u', pid: 7, pidns: 8n } }) as unknown as Core;

const introspection = (loaded: LoadedPlugins): ServiceImplementation<typeof IntrospectionDefinition> =>
  loaded.services.find(({ definition }) => definition.fullName === IntrospectionDefinition.fullName)!
    .implementation as unknown as ServiceImplementation<typeof IntrospectionDefinition>;

const list = async (loaded: LoadedPlugins, ...filters: string[]): Promise<string[]> => {
  const { plugins } = await introspection(loaded).plugins({ filters }, context);
  return plugins!.map(({ type, id }) => `${type}.${id}`);
};

test('clients find every plugin, by type and id', async () => {
  const loaded = new LoadedPlugins(core(parseConfig('root = "/r"\nstate = "/s"', 'x')), log);
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
    core(parseConfig('disabled_plugins = ["io.containerd.grpc.v1.leases"]', 'x')),
    log,
  );
  assert.deepEqual(await list(loaded, 'id==leases'), []);
  assert.equal(loaded.serves('containerd.services.leases.v1.Leases'), false);
  assert.equal(loaded.serves('containerd.services.namespaces.v1.Namespaces'), true);
});

test('a plugin that fails is reported, unless it is required', async () => {
  const broken = (toml: string): Core => {
    const whole = core(parseConfig(toml, 'x'));
    return Object.defineProperty({ ...whole }, 'metadata', {
      get: () => {
        throw new Error('out of order');
      },
    });
  };
  const loaded = new LoadedPlugins(broken(''), log);
  const { plugins } = await introspection(loaded).plugins({ filters: ['id==leases'] }, context);
  assert.deepEqual(plugins![0]!.initErr, { code: Code.Unknown, message: 'out of order' });
  assert.equal(loaded.serves('containerd.services.leases.v1.Leases'), false);
  assert.throws(
    () => new LoadedPlugins(broken('required_plugins = ["io.containerd.grpc.v1.leases"]'), log),
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

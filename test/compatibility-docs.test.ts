/** docs/compatibility.md tells the truth about each method of each service. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { type ClientHttp2Session, connect as connectHttp2, type IncomingHttpHeaders } from 'node:http2';
import { connect } from 'node:net';
import { join } from 'node:path';
import { it } from 'node:test';
import { Code } from '../ttrpc/errors.ts';
import type { ServiceDefinition } from '../ttrpc/service.ts';
import { suite } from './harness/peers.ts';
import { soon } from './harness/wait.ts';

const repository = join(import.meta.dirname, '..');

interface Row {
  /** `/package.Service/Method` */
  readonly path: string;
  readonly state: string;
}

function rows(): Row[] {
  const page = readFileSync(join(repository, 'docs/compatibility.md'), 'utf8');
  const sections = [...page.matchAll(/^### `([\w.]+)`\n(.*?)(?=^##)/gms)];
  return sections.flatMap(([, service, body]) =>
    [...body!.matchAll(/^\| `(\w+)` +\| (\w+) +\|/gm)].map(([, method, state]) => ({
      path: `/${service!}/${method!}`,
      state: state!,
    })),
  );
}

/** Every method of the contracts that the daemon serves by gRPC. */
async function contracts(): Promise<string[]> {
  const generated = join(repository, 'proto/gen');
  const folders = ['containerd/services', 'moor/services', 'grpc/health', 'runtime/v1'].map((name) =>
    join(generated, name),
  );
  const files = folders.flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)));
  const modules = await Promise.all(files.map((file) => import(file) as Promise<Record<string, unknown>>));
  const definitions = modules.flatMap((exported) =>
    Object.entries(exported)
      .filter(([name]) => name.endsWith('Definition'))
      .map(([, definition]) => definition as ServiceDefinition),
  );
  return definitions
    .filter(({ fullName }) => !fullName.includes('.ttrpc.'))
    .flatMap(({ fullName, methods }) => Object.values(methods).map(({ name }) => `/${fullName}/${name}`));
}

/** What the daemon answers to an empty request: a status, or undefined when it begins with an answer. */
async function statusOf(
  session: ClientHttp2Session,
  path: string,
  namespace: string,
): Promise<number | undefined> {
  const stream = session.request({
    ':method': 'POST',
    ':path': path,
    'content-type': 'application/grpc',
    'containerd-namespace': namespace,
    te: 'trailers',
  });
  stream.on('error', () => undefined);
  stream.end(Buffer.alloc(5));
  const [headers] = (await soon(`an answer of ${path}`, once(stream, 'response'))) as [IncomingHttpHeaders];
  stream.close();
  const status = headers['grpc-status'];
  return status === undefined ? undefined : Number(status);
}

suite('the page on compatibility', { peers: ['moord'] }, (rig) => {
  it('names every method once', async () => {
    const named = rows().map(({ path }) => path);
    assert.equal(new Set(named).size, named.length);
    const missing = (await contracts()).filter((path) => !named.includes(path));
    assert.deepEqual(missing, []);
  });

  it('says of each method what it does', async () => {
    const session = connectHttp2('http://localhost', {
      createConnection: () => connect(rig.daemon.address),
    });
    try {
      const all = rows();
      assert.ok(all.length > 90, `${all.length} methods`);
      for (const { path, state } of all) {
        assert.ok(['done', 'differs', 'absent'].includes(state), `${path}: ${state}`);
        const status = await statusOf(session, path, rig.ctr.namespace);
        if (state === 'absent') assert.equal(status, Code.Unimplemented, path);
        else assert.notEqual(status, Code.Unimplemented, path);
      }
    } finally {
      session.destroy();
    }
  });
});

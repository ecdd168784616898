/** Making a sandbox: bundle, shim, and the sandbox in it; and unmaking all of it when a step fails. */
import type { Logger } from 'pino';
import type { Sandbox } from '../../proto/gen/containerd/types/sandbox.ts';
import { Any } from '../../proto/gen/google/protobuf/any.ts';
import { RpcError, invalidArgument, toRpcError } from '../../ttrpc/errors.ts';
import { storageError } from '../content/storage-error.ts';
import { reached } from '../failpoint.ts';
import type { ContainerId } from '../identifiers.ts';
import { Bundle, type BundleContent, hasCode } from '../runtime/bundle.ts';
import type { StartedShim } from '../runtime/launcher.ts';
import type { Launchers } from '../runtime/launchers.ts';
import { typeName } from '../runtime/options.ts';
import { Shim } from '../runtime/shim.ts';
import { timestampNow } from '../timestamp.ts';
import type { NewSandbox, SandboxKey } from './controller.ts';
import { dismiss, removeBundle } from './ending.ts';
import { type SandboxRecord, writeRecord } from './record.ts';
import { ShimSandbox, type ShimSandboxParts } from './shim-sandbox.ts';

export interface Creation extends Pick<ShimSandboxParts, 'log' | 'onEnd'> {
  /** Of the bundles. */
  readonly directory: string;
  readonly launchers: Launchers;
  readonly key: SandboxKey;
  /** The sandbox as the client has stored it. */
  readonly record: Sandbox;
  readonly request: NewSandbox;
}

/** Milliseconds; longer than any runtime takes. */
const CREATE_TIMEOUT_MS = 5 * 60_000;
/** A sandbox without a specification of its own. */
const NO_SPEC = Buffer.from('{}');
/** Go clients send it where they have no options. */
const EMPTY = 'google.protobuf.Empty';

/** @throws RpcError; nothing is left of it then */
export async function createSandbox(creation: Creation, signal: AbortSignal): Promise<ShimSandbox> {
  const { directory, launchers, key, record, request, onEnd } = creation;
  const { namespace, id } = key;
  const runtime = record.runtime?.name ?? '';
  if (runtime === '') throw invalidArgument(`the runtime of sandbox ${id} is not named: invalid argument`);
  const given = record.runtime?.options;
  const containerOptions = given === undefined || typeName(given) === EMPTY ? undefined : given;
  const { launcher, options } = launchers.choose({ runtime, options: undefined, containerOptions });
  const log = creation.log.child({ namespace, sandbox: id });
  const bundle = new Bundle(directory, namespace, id as ContainerId);
  const content = {
    spec: record.spec === undefined || record.spec.value.length === 0 ? NO_SPEC : record.spec.value,
    options: options && Any.encode(options).finish(),
  };
  await makeBundle(bundle, content, launchers, log);
  let started: StartedShim | undefined;
  let shim: Shim | undefined;
  let stopLog = () => {};
  try {
    reached('sandbox-bundle-made');
    stopLog = launcher.followLog(bundle, log);
    started = await launcher.start(bundle);
    reached('sandbox-shim-started');
    shim = await Shim.connect(started.bootstrap, signal);
    const { rootfs, netnsPath, annotations } = request;
    const call = { signal, timeout: CREATE_TIMEOUT_MS };
    await shim.sandbox.createSandbox(
      { sandboxId: id, bundlePath: bundle.path, rootfs, options: request.options, netnsPath, annotations },
      call,
    );
    reached('sandbox-created');
    const made: SandboxRecord = { step: 'created', pid: 0, createdAt: timestampNow() };
    writeRecord(bundle.path, made);
    reached('sandbox-recorded');
    const { bootstrap } = started;
    const sandbox = new ShimSandbox({ bundle, launcher, bootstrap, record: made, log, onEnd, stopLog });
    sandbox.attach(shim);
    return sandbox;
  } catch (error) {
    await dismiss({ bundle, launcher, bootstrap: started?.bootstrap, log }, shim);
    stopLog();
    await removeBundle({ bundle, log });
    const { code, message } = toRpcError(error);
    const step = started === undefined ? 'start the shim of' : 'create';
    throw new RpcError(code, `failed to ${step} sandbox ${id}: ${message}`, { cause: error });
  }
}

async function makeBundle(
  bundle: Bundle,
  content: BundleContent,
  launchers: Launchers,
  log: Logger,
): Promise<void> {
  try {
    bundle.create(content);
  } catch (error) {
    if (!hasCode(error, 'EEXIST')) throw storageError('make the bundle', bundle.path, error);
    // Nobody knows of a sandbox here: it is what a failed creation could not remove. A newer daemon's is not touched.
    const bootstrap = bundle.readBootstrap();
    await dismiss({ bundle, launcher: launchers.known(bootstrap), bootstrap, log }, undefined);
    await removeBundle({ bundle, log });
    bundle.create(content);
  }
}

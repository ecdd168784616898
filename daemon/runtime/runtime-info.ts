/** What a runtime's shim tells of itself when it is run with `-info`. */
import { RuntimeInfo, type RuntimeRequest } from '../../proto/gen/containerd/types/runtime_info.ts';
import { Any } from '../../proto/gen/google/protobuf/any.ts';
import { internal, messageOf } from '../../ttrpc/errors.ts';
import { invoke } from './invocation.ts';
import { shimCommand } from './own-shim.ts';
import { resolveRuntime } from './runtime-name.ts';

/** Milliseconds; a shim may ask its runtime in turn. */
const INFO_TIMEOUT_MS = 15_000;

/**
 * Asks the shim of a runtime.
 *
 * @param request the runtime, by a name or a path as for tasks, and options as for its tasks
 * @throws RpcError InvalidArgument, NotFound for a runtime that is not there; Internal, DeadlineExceeded when its shim does not tell
 */
export async function runtimeInfo({ runtimePath, options }: RuntimeRequest): Promise<RuntimeInfo> {
  const runtime = resolveRuntime(runtimePath);
  const command = runtime.kind === 'own' ? shimCommand() : [runtime.binary];
  const input = options === undefined ? new Uint8Array() : Any.encode(options).finish();
  const { stdout } = await invoke({
    command: [...command, '-info'],
    cwd: '/',
    env: process.env,
    input,
    timeout: INFO_TIMEOUT_MS,
  });
  try {
    return RuntimeInfo.decode(stdout);
  } catch (error) {
    throw internal(`${command[0]} -info answers with something else: ${messageOf(error)}`, error);
  }
}

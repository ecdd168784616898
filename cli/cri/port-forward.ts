/** Ports of a pod as ports of this host, as long as the command runs. */
import { type AddressInfo, type Server, type Socket, createServer } from 'node:net';
import { type Command, InvalidArgumentError } from 'commander';
import { Failure, explain } from '../failure.ts';
import { type Session, withClient } from '../session.ts';

interface Forward {
  /** 0 for any that is free. */
  readonly local: number;
  readonly remote: number;
}

const LOOPBACK = ['127.0.0.1', '::1'] as const;

export function addPortForward(cri: Command): void {
  cri
    .command('port-forward')
    .description('connect ports of this host with those of a pod, until interrupted')
    .usage('[options] <pod> [local-port:]<remote-port>...')
    .argument('<pod>')
    .argument('<port...>', 'LOCAL:REMOTE; a port alone is both, :REMOTE takes any that is free', collect)
    .action((pod: string, forwards: Forward[], _flags: object, command: Command) =>
      withClient(command, (session) => forward(session, pod, forwards)),
    );
}

async function forward(session: Session, podSandboxId: string, forwards: readonly Forward[]): Promise<void> {
  const { client, call, sdk } = session;
  const { status } = await client.kubernetes.runtime.podSandboxStatus({ podSandboxId }, call);
  if (status?.state !== sdk.PodSandboxState.SANDBOX_READY)
    throw new Failure(`pod ${podSandboxId} does not run`);
  const servers: Server[] = [];
  try {
    for (const each of forwards) {
      const { local, remote } = each;
      const connect = (socket: Socket): void => void serve(session, podSandboxId, remote, socket);
      const [first, second] = LOOPBACK;
      const server = await listen(first, local, connect);
      servers.push(server);
      const { port } = server.address() as AddressInfo;
      console.log(`Forwarding from ${first}:${port} -> ${remote}`);
      // Hosts without IPv6 have one address less.
      const other = await listen(second, port, connect).catch(() => undefined);
      if (other === undefined) continue;
      servers.push(other);
      console.log(`Forwarding from [${second}]:${port} -> ${remote}`);
    }
    await interrupted(call.signal);
  } finally {
    for (const server of servers) server.close();
  }
}

/** One that breaks off is told, and is no reason for the others to. */
async function serve(session: Session, podSandboxId: string, port: number, socket: Socket): Promise<void> {
  socket.on('error', () => {});
  try {
    await session.client.kubernetes.forward(podSandboxId, port, socket, session.call);
  } catch (error) {
    if (!session.call.signal.aborted) for (const line of explain(error, session.globals)) console.error(line);
  } finally {
    socket.destroy();
  }
}

/** @throws Failure for a port that is taken */
async function listen(host: string, port: number, connect: (socket: Socket) => void): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, connect);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject).listen({ host, port }, resolve);
  try {
    await promise;
  } catch (error) {
    throw new Failure(`cannot listen on ${host}:${port}: ${(error as Error).message}`);
  }
  return server;
}

async function interrupted(signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  process.once('SIGINT', resolve).once('SIGTERM', resolve);
  signal.addEventListener('abort', () => resolve(), { once: true });
  await promise;
  signal.throwIfAborted();
}

function collect(text: string, previous: readonly Forward[] = []): Forward[] {
  const [, local, remote = ''] = /^(?:(\d*):)?(\d+)$/.exec(text) ?? [];
  const forwarded = { remote: Number(remote), local: Number(local ?? remote) };
  if (remote === '' || Object.values(forwarded).some((port) => port > 65_535) || forwarded.remote === 0)
    throw new InvalidArgumentError('Give ports as LOCAL:REMOTE or REMOTE.');
  return [...previous, forwarded];
}

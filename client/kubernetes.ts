import type { Duplex } from 'node:stream';
import { ImageServiceDefinition, RuntimeServiceDefinition } from '../proto/gen/runtime/v1/api.ts';
import type { CallOptions, ServiceClient } from '../ttrpc/service.ts';
import type { Connection } from './connection.ts';
import type { CommandStreams, RemoteCommand } from './remote-command.ts';

export {
  type Container as KubernetesContainer,
  type ContainerConfig,
  ContainerEventType,
  ContainerState,
  type ContainerStatus as KubernetesContainerStatus,
  type Image as KubernetesImage,
  type PodSandbox,
  type PodSandboxConfig,
  PodSandboxState,
} from '../proto/gen/runtime/v1/api.ts';
export type { CommandStreams, RemoteCommand } from './remote-command.ts';

export interface RemoteOptions extends CallOptions, CommandStreams {
  readonly tty?: boolean;
}

/** What Kubernetes has on this node: the calls of the CRI, as kubelet makes them. They know no namespaces of containerd's. */
export class Kubernetes {
  /** Pods and their containers. */
  readonly runtime: ServiceClient<typeof RuntimeServiceDefinition>;
  readonly images: ServiceClient<typeof ImageServiceDefinition>;

  constructor(connection: Connection) {
    this.runtime = connection.service(RuntimeServiceDefinition);
    this.images = connection.service(ImageServiceDefinition);
  }

  /** Runs a program in a container, connected to the streams. With a terminal, errors come with the output. */
  async exec(
    containerId: string,
    cmd: readonly string[],
    options: RemoteOptions = {},
  ): Promise<RemoteCommand> {
    const wanted = wantedOf(options);
    const { url } = await this.runtime.exec({ containerId, cmd: [...cmd], ...wanted }, options);
    return connected(url, options);
  }

  /** Connects the streams to the first process of a container. Its output comes from now on. */
  async attach(containerId: string, options: RemoteOptions = {}): Promise<RemoteCommand> {
    const { url } = await this.runtime.attach({ containerId, ...wantedOf(options) }, options);
    return connected(url, options);
  }

  /** Connects a stream with a port of a pod. Resolves when either side has ended. */
  async forward(
    podSandboxId: string,
    port: number,
    connection: Duplex,
    options: CallOptions = {},
  ): Promise<void> {
    const { url } = await this.runtime.portForward({ podSandboxId, port: [port] }, options);
    const { forwardPort } = await import('./remote-command.ts');
    await forwardPort(url, connection, options.signal ?? NEVER);
  }
}

const NEVER = new AbortController().signal;

function wantedOf({ tty = false, stdin, stdout, stderr }: RemoteOptions) {
  return {
    tty,
    stdin: stdin !== undefined,
    stdout: stdout !== undefined,
    stderr: stderr !== undefined && !tty,
  };
}

async function connected(url: string, options: RemoteOptions): Promise<RemoteCommand> {
  const { RemoteCommand } = await import('./remote-command.ts');
  return RemoteCommand.connect(url, options, options.signal ?? NEVER);
}

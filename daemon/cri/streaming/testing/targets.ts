/** What a streaming server connects to in its unit tests: processes of the host instead of a container's. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { openLog } from '../../../log.ts';
import { StreamingServer } from '../server.ts';
import type { CommandSession, RemoteProcess, Targets } from '../session.ts';
import type { StreamingSettings } from '../settings.ts';
import type { TerminalSize } from '../terminal-size.ts';

export class HostTargets implements Targets {
  readonly sizes: TerminalSize[] = [];
  /** Of the pod; undefined for the host's. */
  netns: string | undefined;
  /** What attach connects to. */
  readonly main: readonly string[] = ['sh', '-c', 'cat; echo done'];
  readonly disposed: string[] = [];

  async exec(session: CommandSession & { readonly command: readonly string[] }): Promise<RemoteProcess> {
    return this.#start(session, session.command);
  }

  async attach(session: CommandSession): Promise<RemoteProcess> {
    const process = await this.#start(session, this.main);
    return { ...process, exited: process.exited.then(() => undefined) };
  }

  async network(podSandboxId: string): Promise<string | undefined> {
    if (podSandboxId === 'missing') throw new Error('pod sandbox "missing": not found');
    return this.netns;
  }

  async #start(
    { stdin, stdout, stderr }: CommandSession,
    [file, ...args]: readonly string[],
  ): Promise<RemoteProcess> {
    const child = spawn(file!, args);
    await once(child, 'spawn');
    const exited = once(child, 'exit').then(([code]) => code as number);
    if (!stdin) child.stdin.end();
    return {
      stdin: stdin ? child.stdin : undefined,
      stdout: stdout ? child.stdout : undefined,
      stderr: stderr ? child.stderr : undefined,
      exited,
      resize: async (size) => void this.sizes.push(size),
      [Symbol.asyncDispose]: async () => {
        this.disposed.push(file!);
        child.kill('SIGKILL');
        await exited;
      },
    };
  }
}

/** A server on a free port of loopback. */
export function serveTargets(targets: Targets, settings: Partial<StreamingSettings> = {}): StreamingServer {
  const usual = { address: '127.0.0.1', port: 0, idle_timeout: '4h', tls_cert: '', tls_key: '' };
  return new StreamingServer({ ...usual, ...settings }, targets, openLog('fatal'));
}

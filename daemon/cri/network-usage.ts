/** What has gone through the interfaces of a pod's network (proc_pid_net(5)). */
import { readFileSync } from 'node:fs';
import { inNamespace } from '../network/netns.ts';

export interface InterfaceUsage {
  readonly name: string;
  readonly rxBytes: bigint;
  readonly rxPackets: bigint;
  readonly rxErrors: bigint;
  readonly rxDropped: bigint;
  readonly txBytes: bigint;
  readonly txPackets: bigint;
  readonly txErrors: bigint;
  readonly txDropped: bigint;
}

/** Every interface but loopback; none when the network has gone. */
export function networkUsage(netns: string): InterfaceUsage[] {
  try {
    return parseDevices(inNamespace(netns, () => readFileSync('/proc/thread-self/net/dev', 'latin1')));
  } catch (error) {
    if (['ENOENT', 'EINVAL'].includes((error as NodeJS.ErrnoException).code ?? '')) return [];
    throw error;
  }
}

/** Reads /proc/net/dev: two lines of headings, then a line with 16 numbers for each. */
export function parseDevices(text: string): InterfaceUsage[] {
  const found: InterfaceUsage[] = [];
  for (const line of text.split('\n').slice(2)) {
    const colon = line.lastIndexOf(':');
    const name = line.slice(0, colon).trim();
    if (colon < 0 || name === 'lo') continue;
    const numbers = line
      .slice(colon + 1)
      .trim()
      .split(/\s+/)
      .map(BigInt);
    const [rxBytes = 0n, rxPackets = 0n, rxErrors = 0n, rxDropped = 0n, , , , , ...sent] = numbers;
    const [txBytes = 0n, txPackets = 0n, txErrors = 0n, txDropped = 0n] = sent;
    found.push({ name, rxBytes, rxPackets, rxErrors, rxDropped, txBytes, txPackets, txErrors, txDropped });
  }
  return found;
}

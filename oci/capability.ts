import { readFileSync } from 'node:fs';

/** By number, from 0 up: capabilities(7), linux/capability.h. */
const NAMES = (
  'CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE ' +
  'NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN ' +
  'SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE ' +
  'MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE'
)
  .split(' ')
  .map((name) => `CAP_${name}`);

/** What a container's processes get unless asked otherwise: containerd's default. */
export const DEFAULT_CAPABILITIES = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FSETID',
  'CAP_FOWNER',
  'CAP_MKNOD',
  'CAP_NET_RAW',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETFCAP',
  'CAP_SETPCAP',
  'CAP_NET_BIND_SERVICE',
  'CAP_SYS_CHROOT',
  'CAP_KILL',
  'CAP_AUDIT_WRITE',
];

/** Whether there is a capability of that name, in capitals and with its prefix. */
export function isCapability(name: string): boolean {
  return NAMES.includes(name);
}

/** The capabilities in a mask as /proc shows it: hexadecimal. Those without a name yet are left out. */
export function capabilitiesOf(mask: string): string[] {
  const bits = BigInt(`0x${mask}`);
  return NAMES.filter((_, number) => ((bits >> BigInt(number)) & 1n) === 1n);
}

/** What this process has in effect: all that it can give to others. */
export function currentCapabilities(): string[] {
  const status = readFileSync('/proc/self/status', 'utf8');
  return capabilitiesOf(/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0');
}

/** What a daemon says on the shim's command line. */
export interface Flags {
  readonly namespace: string;
  readonly id: string;
  /** Path of the daemon's gRPC socket. */
  readonly address: string;
  readonly bundle: string;
  readonly socket: string;
  readonly publishBinary: string;
  readonly debug: boolean;
  readonly version: boolean;
  readonly info: boolean;
  /** `start`, `delete`, `serve` or empty. */
  readonly action: string;
}

const VALUES: Readonly<Record<string, keyof Flags>> = {
  namespace: 'namespace',
  id: 'id',
  address: 'address',
  bundle: 'bundle',
  socket: 'socket',
  'publish-binary': 'publishBinary',
};

const SWITCHES: Readonly<Record<string, keyof Flags>> = {
  debug: 'debug',
  v: 'version',
  version: 'version',
  info: 'info',
};

/**
 * Parses flags as Go's `flag` package takes them, which is what every containerd writes: `-id x`, `-id=x` and `--id x` alike. They may
 * stand before or after the action.
 *
 * @throws Error for flags that no containerd has, and flags without their value
 */
export function parseFlags(args: readonly string[]): Flags {
  const flags: Record<string, string | boolean> = {
    namespace: '',
    id: '',
    address: '',
    bundle: '',
    socket: '',
    publishBinary: '',
    action: '',
    debug: false,
    version: false,
    info: false,
  };
  const rest = [...args];
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    const match = /^--?([^-=][^=]*)(?:=(.*))?$/s.exec(word);
    if (match === null) {
      flags['action'] = word;
      continue;
    }
    const [, name = '', given] = match;
    if (Object.hasOwn(SWITCHES, name)) flags[SWITCHES[name]!] = given === undefined || given === 'true';
    else if (Object.hasOwn(VALUES, name)) flags[VALUES[name]!] = given ?? rest.shift() ?? without(name);
    else throw new Error(`unknown flag -${name}`);
  }
  return flags as unknown as Flags;
}

function without(name: string): never {
  throw new Error(`flag -${name} needs a value`);
}

/** What ip(8) and the kernel say when they refuse something, as failures with a kind. */
import {
  type RpcError,
  alreadyExists,
  failedPrecondition,
  internal,
  invalidArgument,
  messageOf,
  notFound,
  permissionDenied,
  resourceExhausted,
  unimplemented,
} from '../../ttrpc/errors.ts';
import { IpFailure } from './iproute.ts';

/** What was to be done, and to what. */
export interface Attempt {
  /** `cannot add link "x" to network "y"`. */
  readonly action: string;
  /** What its words mean here where they mean different things; asked before the common meanings. */
  readonly meanings?: readonly Meaning[];
}

type Meaning = readonly [words: RegExp, make: (message: string, cause: unknown) => RpcError, reason?: string];

/** Of iproute2 6.1 and Linux 6.x. `Error:` comes from the kernel (extended acknowledgement), the rest is iproute2's. */
const common: readonly Meaning[] = [
  [
    /Cannot find device "([^"]*)"|Device "([^"]*)" does not exist/,
    notFound,
    'link "$1$2" is not there: not found',
  ],
  [/argument "([^"]*)" is wrong: Device does not exist/, notFound, 'link "$1" is not there: not found'],
  [/No such device/, notFound, 'a link it needs is not there: not found'],
  [/File exists|already assigned/i, alreadyExists, 'already exists'],
  [/address not found|No such process/i, notFound, 'not found'],
  [/Unknown device type/, unimplemented, 'the kernel has no links of this kind'],
  [/Operation not supported/, unimplemented, 'the kernel does not support it'],
  [/Operation not permitted/, permissionDenied],
  [/Cannot allocate memory|No buffer space|No space left/, resourceExhausted],
  [/busy|is immutable|is up|must be (?:down|up)|Network is (?:unreachable|down)/i, failedPrecondition],
  [/No route to host|invalid gateway|already (?:a|in)|Too many levels|loop/i, failedPrecondition],
  [/Invalid|mtu (?:less|greater)|out of range|is wrong|Cannot assign requested address/i, invalidArgument],
];

/** The failure with the attempt in its message; what is none of ip's stays as it is. */
export function refusal(error: unknown, { action, meanings = [] }: Attempt): unknown {
  if (!(error instanceof IpFailure)) return error;
  const said = error.message.split('\n')[0]!.replace(/^(?:RTNETLINK answers|Error): /, '');
  for (const [words, make, reason] of [...meanings, ...common]) {
    const match = words.exec(error.message);
    if (match === null) continue;
    const why = reason?.replace(/\$(\d)/g, (_, group: string) => match[Number(group)] ?? '') ?? said;
    return make(`${action}: ${why}`, error);
  }
  return internal(`${action}: ${messageOf(error)}`, error);
}

/** Does it, and makes refusals readable. @throws RpcError */
export async function attempt<T>(about: Attempt, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    throw refusal(error, about);
  }
}

/** The labels by which a daemon keeps containers running: containerd's (runtime/restart). */
import { invalidArgument } from '../ttrpc/errors.ts';
import type { Labels } from './namespace.ts';

/** When a container is to be started again. The number is how often at most. */
export type RestartPolicy = 'no' | 'always' | 'unless-stopped' | 'on-failure' | `on-failure:${number}`;

export interface RestartOptions {
  readonly policy: RestartPolicy;
  /** Where it then writes to: `file:///path` or `binary:///path?name=value`. Default: nowhere. */
  readonly log?: string;
}

const STATUS_LABEL = 'containerd.io/restart.status';
const POLICY_LABEL = 'containerd.io/restart.policy';
const LOG_LABEL = 'containerd.io/restart.loguri';
const STOPPED_LABEL = 'containerd.io/restart.explicitly-stopped';

/** @throws RpcError InvalidArgument for a policy that is none */
export function parseRestartPolicy(text: string): RestartPolicy {
  if (/^(?:no|always|unless-stopped|on-failure(?::[1-9]\d{0,8})?)$/.test(text)) return text as RestartPolicy;
  throw invalidArgument(
    `there is no restart policy ${text}: use no, always, unless-stopped or on-failure[:MAXIMUM]`,
  );
}

/** @throws RpcError InvalidArgument */
export function restartLabels(options: RestartOptions | undefined): Labels {
  if (options === undefined) return {};
  const policy = parseRestartPolicy(options.policy);
  if (policy === 'no') return {};
  const labels = { [STATUS_LABEL]: 'running', [POLICY_LABEL]: policy };
  return options.log === undefined ? labels : { ...labels, [LOG_LABEL]: options.log };
}

/** What changes when somebody stops the container on purpose, or starts it again; undefined when nobody keeps it running. */
export function stopLabels(labels: Labels, isStopped: boolean): Labels | undefined {
  const isMarked = labels[STOPPED_LABEL] === 'true';
  if (!(STATUS_LABEL in labels) || isMarked === isStopped) return undefined;
  return { [STOPPED_LABEL]: isStopped ? 'true' : '' };
}

/** How fast a pod may send and receive, which its annotations say and a CNI plugin sees to. */
import { invalidArgument } from '../../ttrpc/errors.ts';

/** As the capability `bandwidth` has it: bits a second, and bits at once. */
export interface Bandwidth {
  readonly ingressRate?: number;
  readonly ingressBurst?: number;
  readonly egressRate?: number;
  readonly egressBurst?: number;
}

const INGRESS = 'kubernetes.io/ingress-bandwidth';
const EGRESS = 'kubernetes.io/egress-bandwidth';
/** As much at once as the plugin takes: the rate alone is what was asked for. */
const BURST = 2 ** 31 - 1;

const FACTORS: { readonly [suffix: string]: number } = {
  '': 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
};

/** @returns undefined when the annotations say nothing of it @throws RpcError InvalidArgument for what is no quantity */
export function bandwidthOf(annotations: { readonly [key: string]: string }): Bandwidth | undefined {
  const ingress = rateOf(annotations, INGRESS);
  const egress = rateOf(annotations, EGRESS);
  if (ingress === undefined && egress === undefined) return undefined;
  return {
    ...(ingress !== undefined && { ingressRate: ingress, ingressBurst: BURST }),
    ...(egress !== undefined && { egressRate: egress, egressBurst: BURST }),
  };
}

function rateOf(annotations: { readonly [key: string]: string }, key: string): number | undefined {
  const text = annotations[key];
  if (text === undefined) return undefined;
  const [, digits, suffix] = /^(\d+(?:\.\d+)?)(|[kMGT]i?|Ki)$/.exec(text) ?? [];
  const factor = FACTORS[suffix ?? '?'];
  if (digits === undefined || factor === undefined)
    throw invalidArgument(`annotation ${key}: ${JSON.stringify(text)} is no quantity: invalid argument`);
  return Math.ceil(Number(digits) * factor);
}

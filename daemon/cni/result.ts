/** What plugins answer (CNI specification 1.0, section 5), of whatever version, as the newest one has it. */
import { internal } from '../../ttrpc/errors.ts';

export interface Interface {
  readonly name: string;
  readonly mac?: string;
  /** The network namespace it is in; absent on the host. */
  readonly sandbox?: string;
}

export interface Ip {
  /** With the length of its prefix. */
  readonly address: string;
  readonly gateway?: string;
  /** Which of the interfaces has it, by its place in the list. */
  readonly interface?: number;
}

export interface Route {
  readonly dst: string;
  readonly gw?: string;
}

export interface Dns {
  readonly nameservers?: readonly string[];
  readonly domain?: string;
  readonly search?: readonly string[];
  readonly options?: readonly string[];
}

export interface Result {
  readonly interfaces: readonly Interface[];
  readonly ips: readonly Ip[];
  readonly routes: readonly Route[];
  readonly dns: Dns;
}

/** As it came, in the version of the configuration; what is handed to the next plugin. */
export type RawResult = { readonly [key: string]: unknown };

interface AnyResult {
  readonly interfaces?: readonly Interface[];
  readonly ips?: readonly Ip[];
  readonly routes?: readonly Route[];
  readonly dns?: Dns;
  /** Of versions before 0.3.0. */
  readonly ip4?: OldIp;
  readonly ip6?: OldIp;
}

interface OldIp {
  readonly ip: string;
  readonly gateway?: string;
  readonly routes?: readonly Route[];
}

/** @throws RpcError Internal when it is nothing that a plugin may answer */
export function resultOf(raw: RawResult): Result {
  const { interfaces = [], ips = [], routes = [], dns = {}, ip4, ip6 } = raw as AnyResult;
  const old = [ip4, ip6].filter((ip) => ip !== undefined);
  const isList = (list: unknown): boolean => Array.isArray(list) && list.every(isObject);
  const isWhole = [old, interfaces, ips, routes].every(isList) && isObject(dns);
  if (!isWhole || !old.every(({ routes = [] }) => isList(routes)))
    throw internal('a CNI plugin answered with a malformed result');
  return {
    interfaces: interfaces.map(({ name, mac, sandbox }) => ({
      name,
      ...(mac === undefined ? {} : { mac }),
      ...(sandbox === undefined || sandbox === '' ? {} : { sandbox }),
    })),
    ips: [
      ...ips.map(({ address, gateway, interface: index }) => ({
        address,
        ...(gateway === undefined ? {} : { gateway }),
        ...(index === undefined ? {} : { interface: index }),
      })),
      ...old.map(({ ip: address, gateway }) => ({ address, ...(gateway === undefined ? {} : { gateway }) })),
    ],
    routes: [...routes, ...old.flatMap((ip) => ip.routes ?? [])],
    dns,
  };
}

function isObject(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What the runtime is and whether it is ready. */
import { readFileSync } from 'node:fs';
import { release } from 'node:os';
import { CgroupDriver } from '../../proto/gen/runtime/v1/api.ts';
import { version } from '../version.ts';
import type { Calls, Cri } from './cri.ts';
import { handlersOf } from './settings.ts';

/** Of the kubelet API, in which `Version` is asked; it has stayed so. */
const KUBELET_API = '0.1.0';
const API = 'v1';
const NAME = 'moor';

export function statusCalls(cri: Cri): Calls<'version' | 'status' | 'runtimeConfig' | 'updateRuntimeConfig'> {
  return {
    async version() {
      return { version: KUBELET_API, runtimeName: NAME, runtimeVersion: version, runtimeApiVersion: API };
    },

    async status({ verbose }) {
      const problem = cri.networks.problem();
      const network =
        problem === undefined
          ? { status: true, reason: '', message: '' }
          : {
              status: false,
              reason: 'NetworkPluginNotReady',
              message: `Network plugin returns error: ${problem}`,
            };
      return {
        status: {
          conditions: [
            { type: 'RuntimeReady', status: true, reason: '', message: '' },
            { type: 'NetworkReady', ...network },
          ],
        },
        runtimeHandlers: handlersOf(cri.settings).map((name) => ({ name, features: handlerFeatures() })),
        features: { supplementalGroupsPolicy: true, userNamespacesHostNetwork: false },
        info: verbose ? infoOf(cri) : {},
      };
    },

    async runtimeConfig() {
      const { systemd_cgroup: isSystemd } = cri.settings;
      return { linux: { cgroupDriver: isSystemd ? CgroupDriver.SYSTEMD : CgroupDriver.CGROUPFS } };
    },

    // What it says is which addresses pods have, and that is the business of the CNI configuration.
    async updateRuntimeConfig() {
      return {};
    },
  };
}

/** Both need mount_setattr(2): Linux 5.12. */
function handlerFeatures(): { recursiveReadOnlyMounts: boolean; userNamespaces: boolean } {
  const [major = 0, minor = 0] = release().split('.').map(Number);
  const isNew = major > 5 || (major === 5 && minor >= 12);
  return { recursiveReadOnlyMounts: isNew, userNamespaces: isNew && canMapUsers() };
}

function canMapUsers(): boolean {
  try {
    return Number(readFileSync('/proc/sys/user/max_user_namespaces', 'utf8')) > 0;
  } catch {
    return false;
  }
}

function infoOf({ settings, networks }: Cri): { [key: string]: string } {
  const problem = networks.problem();
  return {
    config: JSON.stringify(settings),
    cniconfig: JSON.stringify({ networks: networks.lists, problem }),
    lastCNILoadStatus: problem ?? 'OK',
  };
}

import {
  HealthCheckResponse_ServingStatus as Status,
  HealthDefinition,
} from '../../proto/gen/grpc/health/v1.ts';
import { notFound } from '../../ttrpc/errors.ts';
import { type Service, service } from '../grpc/server.ts';
import type { Health } from '../health.ts';

/** @param serves tells whether a service of that full name is there; the empty name stands for the daemon as a whole */
export function healthService(health: Health, serves: (name: string) => boolean): Service {
  const known = (name: string): boolean => name === '' || serves(name);
  const status = (): Status => (health.serving ? Status.SERVING : Status.NOT_SERVING);
  return service(HealthDefinition, {
    async check({ service }) {
      if (!known(service)) throw notFound(`service "${service}" is unknown: not found`);
      return { status: status() };
    },

    async *watch({ service }, { signal }) {
      if (known(service)) {
        yield { status: status() };
        if (health.serving) await aborted(AbortSignal.any([health.stopped, signal]));
        if (!signal.aborted) yield { status: status() };
      } else {
        yield { status: Status.SERVICE_UNKNOWN };
      }
      // There is nothing more to say, yet a watch ends only with its caller (health/v1: Watch).
      await aborted(signal);
    },
  });
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

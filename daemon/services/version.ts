import { VersionDefinition } from '../../proto/gen/containerd/services/version.ts';
import { type Service, service } from '../grpc/server.ts';

export function versionService(version: string, revision: string): Service {
  return service(VersionDefinition, {
    version: () => Promise.resolve({ version, revision }),
  });
}

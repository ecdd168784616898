/** The contracts in `proto/` as data: every service, method and field, so that a test can speak of all of them. */
import { execFileSync } from 'node:child_process';
import { join, resolve } from 'node:path';
import {
  type DescField,
  type DescMessage,
  type DescMethod,
  type FileRegistry,
  createFileRegistry,
  fromBinary,
} from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';

export type { DescField, DescMessage, DescMethod };

const repository = resolve(import.meta.dirname, '../..');

/** Compiles the contracts. */
export function contracts(): FileRegistry {
  const compiled = execFileSync(
    join(repository, 'node_modules/.bin/buf'),
    ['build', '-o', '-#format=binpb'],
    {
      cwd: join(repository, 'proto'),
      maxBuffer: 1 << 28,
    },
  );
  return createFileRegistry(fromBinary(FileDescriptorSetSchema, compiled));
}

/** The methods of all services whose full name passes. */
export function methodsOf(registry: FileRegistry, isWanted: (service: string) => boolean): DescMethod[] {
  return [...registry].flatMap((each) =>
    each.kind === 'service' && isWanted(each.typeName) ? each.methods : [],
  );
}

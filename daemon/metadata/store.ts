/** All metadata of a daemon, in one place on disk. */
import { ContainerStore } from './containers.ts';
import { Database } from './database.ts';
import { LeaseStore } from './leases.ts';
import { NamespaceStore } from './namespaces.ts';
import { SandboxStore } from './sandboxes.ts';

export class MetadataStore {
  readonly namespaces: NamespaceStore;
  readonly containers: ContainerStore;
  readonly leases: LeaseStore;
  readonly sandboxes: SandboxStore;
  /** For the stores of what is not only records: content, images, snapshots. */
  readonly database: Database;

  private constructor(database: Database) {
    this.database = database;
    this.namespaces = new NamespaceStore(database);
    this.containers = new ContainerStore(database);
    this.leases = new LeaseStore(database);
    this.sandboxes = new SandboxStore(database);
  }

  /**
   * @param directory made when it is not there
   * @throws Error when it was written by a newer version of Moor, or cannot be opened
   */
  static async open(directory: string): Promise<MetadataStore> {
    return new MetadataStore(await Database.open(directory));
  }

  close(): Promise<void> {
    return this.database.close();
  }
}

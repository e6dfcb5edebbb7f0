import type { TenantDatabase } from '../../drizzle/transaction.ts';
import type { RuleAuthor, WriteAudit } from '../audit.ts';
import type { NotifyLimits } from './limits.ts';
import type { Senders } from './message.ts';
import { createNotifications, type Notifications } from './notifications.ts';
import { createPolicies, type Policies } from './policy.ts';
import { previewNotification, type Preview, type PreviewOf } from './preview.ts';
import { createReceivers, type Receivers } from './receivers.ts';
import { createNotificationRoutes, type NotificationRoutes } from './routes-store.ts';
import type { Secrets } from './secrets.ts';
import { sendTest, type TestResult } from './test-send.ts';

/** All that people do with notifications. */
export interface NotifyStores {
  readonly receivers: Receivers;
  readonly routes: NotificationRoutes;
  readonly notifications: Notifications;
  readonly policies: Policies;
  /** See {@link previewNotification}. */
  preview(organizationId: number, of: PreviewOf): Promise<Preview>;
  /** See {@link sendTest}. */
  test(author: RuleAuthor, receiverId: string): Promise<TestResult>;
}

/** What {@link createNotifyStores} needs. */
export interface NotifyStoresDeps {
  readonly database: TenantDatabase;
  readonly writeAudit: WriteAudit;
  readonly senders: Senders;
  readonly secrets: Secrets;
  readonly limits: NotifyLimits;
  /** Milliseconds since 1970. */
  readonly now: () => number;
  /** `wake` of the notifier. */
  readonly wake: () => void;
}

/** Makes them. Every function throws {@link StoreUnavailableError} when the database is away. */
export function createNotifyStores(deps: NotifyStoresDeps): NotifyStores {
  return {
    receivers: createReceivers(deps),
    routes: createNotificationRoutes(deps),
    notifications: createNotifications(deps),
    policies: createPolicies(deps),
    preview: (organizationId, of) =>
      previewNotification(deps.database, organizationId, of, deps.now()),
    test: (author, receiverId) => sendTest(deps, author, receiverId),
  };
}

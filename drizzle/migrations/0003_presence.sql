CREATE TABLE "device_event" (
	"device_event_id" uuid PRIMARY KEY NOT NULL,
	"organization_id" integer,
	"device_id" integer,
	"occurred_at" timestamp (6) with time zone NOT NULL,
	"last_occurred_at" timestamp (6) with time zone NOT NULL,
	"kind" text NOT NULL,
	"code" text NOT NULL,
	"detail" text NOT NULL,
	"count" integer NOT NULL,
	"address" text NOT NULL,
	"key_id" text,
	"connection_number" bigint,
	CONSTRAINT "device_event_kind_check" CHECK ("device_event"."kind" in ('connect', 'disconnect', 'refusal', 'identity'))
);
--> statement-breakpoint
CREATE TABLE "device_presence" (
	"device_id" integer PRIMARY KEY NOT NULL,
	"organization_id" integer NOT NULL,
	"state" text NOT NULL,
	"since" timestamp (6) with time zone NOT NULL,
	"last_contact_at" timestamp (6) with time zone NOT NULL,
	"connection_number" bigint NOT NULL,
	"address" text NOT NULL,
	"hello" jsonb NOT NULL,
	"hello_at" timestamp (6) with time zone,
	CONSTRAINT "device_presence_state_check" CHECK ("device_presence"."state" in ('online', 'sleeping', 'offline'))
);
--> statement-breakpoint
CREATE TABLE "device_sequence" (
	"device_id" integer PRIMARY KEY NOT NULL,
	"boot" bigint NOT NULL,
	"contiguous" bigint NOT NULL,
	"highest" bigint NOT NULL,
	"seen" bigint NOT NULL
);
--> statement-breakpoint
ALTER TABLE "api_key" DROP CONSTRAINT "api_key_kind_check";--> statement-breakpoint
ALTER TABLE "api_key" ADD COLUMN "scopes" text[] DEFAULT '{}'::text[] NOT NULL;--> statement-breakpoint
ALTER TABLE "api_key" ADD COLUMN "devices" text[];--> statement-breakpoint
ALTER TABLE "api_key" ADD COLUMN "expires_at" timestamp (6) with time zone;--> statement-breakpoint
ALTER TABLE "device_presence" ADD CONSTRAINT "device_presence_device_id_device_device_id_fk" FOREIGN KEY ("device_id") REFERENCES "public"."device"("device_id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "device_event_device_id_idx" ON "device_event" USING btree ("device_id","device_event_id");--> statement-breakpoint
CREATE INDEX "device_event_address_idx" ON "device_event" USING btree ("address","device_event_id");--> statement-breakpoint
CREATE INDEX "device_event_occurred_at_idx" ON "device_event" USING btree ("occurred_at");--> statement-breakpoint
CREATE INDEX "device_presence_organization_id_idx" ON "device_presence" USING btree ("organization_id","device_id");--> statement-breakpoint
CREATE INDEX "device_presence_state_idx" ON "device_presence" USING btree ("state","last_contact_at");--> statement-breakpoint
CREATE INDEX "api_key_organization_id_idx" ON "api_key" USING btree ("organization_id","created_at","key_id");--> statement-breakpoint
ALTER TABLE "api_key" ADD CONSTRAINT "api_key_kind_check" CHECK ("api_key"."kind" in ('device', 'admin', 'integrator'));
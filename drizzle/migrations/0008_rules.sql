CREATE TABLE "alert" (
	"alert_id" uuid PRIMARY KEY NOT NULL,
	"organization_id" integer NOT NULL,
	"rule_id" integer NOT NULL,
	"rule_version" integer NOT NULL,
	"device_id" integer NOT NULL,
	"group_key" text DEFAULT '' NOT NULL,
	"state" text NOT NULL,
	"severity" text NOT NULL,
	"value" double precision,
	"text_value" text,
	"labels" jsonb NOT NULL,
	"annotations" jsonb NOT NULL,
	"active_at" timestamp (6) with time zone NOT NULL,
	"fired_at" timestamp (6) with time zone,
	"resolved_at" timestamp (6) with time zone,
	"changed_at" timestamp (6) with time zone NOT NULL,
	"occurrences" integer DEFAULT 1 NOT NULL,
	"sequence" integer DEFAULT 0 NOT NULL,
	"is_shadow" boolean DEFAULT false NOT NULL,
	"is_historical" boolean DEFAULT false NOT NULL,
	"snapshot" jsonb,
	"acknowledged_at" timestamp (6) with time zone,
	"acknowledged_by" text,
	"assignee" text,
	"snoozed_until" timestamp (6) with time zone,
	"verdict" boolean,
	"verdict_by" text,
	"verdict_at" timestamp (6) with time zone,
	CONSTRAINT "alert_state_check" CHECK ("alert"."state" in ('pending', 'firing', 'resolved', 'inactive'))
);
--> statement-breakpoint
CREATE TABLE "alert_note" (
	"alert_note_id" uuid PRIMARY KEY NOT NULL,
	"alert_id" uuid NOT NULL,
	"organization_id" integer NOT NULL,
	"at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	"actor" text NOT NULL,
	"kind" text NOT NULL,
	"content" text NOT NULL
);
--> statement-breakpoint
CREATE TABLE "alert_rule" (
	"rule_id" integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "alert_rule_rule_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 2147483647 START WITH 1 CACHE 1),
	"public_id" uuid NOT NULL,
	"organization_id" integer NOT NULL,
	"name" text NOT NULL,
	"mode" text NOT NULL,
	"version" integer NOT NULL,
	"revision" bigint NOT NULL,
	"created_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	"suspended_at" timestamp (6) with time zone,
	"suspended_reason" text,
	"deleted_at" timestamp (6) with time zone,
	CONSTRAINT "alert_rule_mode_check" CHECK ("alert_rule"."mode" in ('enabled', 'disabled', 'shadow'))
);
--> statement-breakpoint
CREATE TABLE "alert_rule_version" (
	"rule_id" integer NOT NULL,
	"version" integer NOT NULL,
	"organization_id" integer NOT NULL,
	"definition" jsonb NOT NULL,
	"created_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	"created_by" text NOT NULL,
	CONSTRAINT "alert_rule_version_pkey" PRIMARY KEY("rule_id","version")
);
--> statement-breakpoint
CREATE TABLE "alert_transition" (
	"alert_id" uuid NOT NULL,
	"sequence" integer NOT NULL,
	"organization_id" integer NOT NULL,
	"rule_id" integer NOT NULL,
	"rule_version" integer NOT NULL,
	"device_id" integer NOT NULL,
	"at" timestamp (6) with time zone NOT NULL,
	"from_state" text NOT NULL,
	"to_state" text NOT NULL,
	"severity" text NOT NULL,
	"reason" text NOT NULL,
	"detail" jsonb NOT NULL,
	"is_historical" boolean DEFAULT false NOT NULL,
	"recorded_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	"notified_at" timestamp (6) with time zone,
	CONSTRAINT "alert_transition_pkey" PRIMARY KEY("alert_id","sequence")
);
--> statement-breakpoint
CREATE TABLE "device_cadence" (
	"device_id" integer PRIMARY KEY NOT NULL,
	"organization_id" integer NOT NULL,
	"gap_p99_ms" double precision NOT NULL,
	"samples" integer NOT NULL,
	"sketch" jsonb NOT NULL,
	"last_received_at" timestamp (6) with time zone NOT NULL,
	"updated_at" timestamp (6) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "notification" (
	"notification_id" uuid PRIMARY KEY NOT NULL,
	"organization_id" integer NOT NULL,
	"receiver_id" uuid NOT NULL,
	"group_key" text NOT NULL,
	"kind" text NOT NULL,
	"state" text NOT NULL,
	"reason" text,
	"content" jsonb NOT NULL,
	"attempts" smallint DEFAULT 0 NOT NULL,
	"created_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	"next_attempt_at" timestamp (6) with time zone,
	"sent_at" timestamp (6) with time zone,
	CONSTRAINT "notification_state_check" CHECK ("notification"."state" in ('waiting', 'sent', 'dead', 'suppressed'))
);
--> statement-breakpoint
CREATE TABLE "notification_alert" (
	"alert_id" uuid NOT NULL,
	"notification_id" uuid NOT NULL,
	"organization_id" integer NOT NULL,
	CONSTRAINT "notification_alert_pkey" PRIMARY KEY("alert_id","notification_id")
);
--> statement-breakpoint
CREATE TABLE "notification_group" (
	"group_id" uuid PRIMARY KEY NOT NULL,
	"organization_id" integer NOT NULL,
	"route_id" uuid NOT NULL,
	"receiver_id" uuid NOT NULL,
	"group_key" text NOT NULL,
	"members" jsonb NOT NULL,
	"told_members" jsonb NOT NULL,
	"flush_at" timestamp (6) with time zone,
	"told_at" timestamp (6) with time zone
);
--> statement-breakpoint
CREATE TABLE "notification_policy" (
	"organization_id" integer PRIMARY KEY NOT NULL,
	"stopped_at" timestamp (6) with time zone,
	"stopped_by" text
);
--> statement-breakpoint
CREATE TABLE "notification_route" (
	"route_id" uuid PRIMARY KEY NOT NULL,
	"organization_id" integer NOT NULL,
	"position" integer NOT NULL,
	"definition" jsonb NOT NULL,
	"created_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (6) with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "receiver" (
	"receiver_id" uuid PRIMARY KEY NOT NULL,
	"organization_id" integer NOT NULL,
	"name" text NOT NULL,
	"kind" text NOT NULL,
	"settings" jsonb NOT NULL,
	"secret" "bytea",
	"secret_key_id" text,
	"created_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "receiver_kind_check" CHECK ("receiver"."kind" in ('webhook', 'email', 'mqtt', 'slack', 'telegram', 'ntfy'))
);
--> statement-breakpoint
CREATE TABLE "rule_checkpoint" (
	"node" text PRIMARY KEY NOT NULL,
	"evaluated_until" timestamp (6) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "rule_uptime" (
	"node" text PRIMARY KEY NOT NULL,
	"up_at" timestamp (6) with time zone NOT NULL,
	"outages" jsonb NOT NULL
);
--> statement-breakpoint
CREATE TABLE "silence" (
	"silence_id" uuid PRIMARY KEY NOT NULL,
	"organization_id" integer NOT NULL,
	"kind" text NOT NULL,
	"matchers" jsonb NOT NULL,
	"schedule" jsonb,
	"starts_at" timestamp (6) with time zone NOT NULL,
	"ends_at" timestamp (6) with time zone NOT NULL,
	"comment" text NOT NULL,
	"created_by" text NOT NULL,
	"created_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "silence_kind_check" CHECK ("silence"."kind" in ('silence', 'maintenance'))
);
--> statement-breakpoint
ALTER TABLE "device" ADD COLUMN "device_type" text;--> statement-breakpoint
ALTER TABLE "device" ADD COLUMN "report_interval_ms" double precision;--> statement-breakpoint
ALTER TABLE "alert_note" ADD CONSTRAINT "alert_note_alert_id_alert_alert_id_fk" FOREIGN KEY ("alert_id") REFERENCES "public"."alert"("alert_id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "alert_rule_version" ADD CONSTRAINT "alert_rule_version_rule_id_alert_rule_rule_id_fk" FOREIGN KEY ("rule_id") REFERENCES "public"."alert_rule"("rule_id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "notification_alert" ADD CONSTRAINT "notification_alert_notification_id_fk" FOREIGN KEY ("notification_id") REFERENCES "public"."notification"("notification_id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE UNIQUE INDEX "alert_open_key" ON "alert" USING btree ("rule_id","device_id","group_key") WHERE "alert"."state" in ('pending', 'firing') and not "alert"."is_historical";--> statement-breakpoint
CREATE INDEX "alert_organization_id_idx" ON "alert" USING btree ("organization_id","active_at","alert_id");--> statement-breakpoint
CREATE INDEX "alert_open_idx" ON "alert" USING btree ("organization_id","active_at","alert_id") WHERE "alert"."state" in ('pending', 'firing');--> statement-breakpoint
CREATE INDEX "alert_device_id_idx" ON "alert" USING btree ("device_id","active_at");--> statement-breakpoint
CREATE INDEX "alert_changed_at_idx" ON "alert" USING btree ("device_id","changed_at");--> statement-breakpoint
CREATE INDEX "alert_rule_id_idx" ON "alert" USING btree ("rule_id","active_at");--> statement-breakpoint
CREATE INDEX "alert_note_alert_id_idx" ON "alert_note" USING btree ("alert_id","alert_note_id");--> statement-breakpoint
CREATE UNIQUE INDEX "alert_rule_public_id_key" ON "alert_rule" USING btree ("public_id");--> statement-breakpoint
CREATE UNIQUE INDEX "alert_rule_organization_id_name_key" ON "alert_rule" USING btree ("organization_id","name") WHERE "alert_rule"."deleted_at" is null;--> statement-breakpoint
CREATE INDEX "alert_rule_revision_idx" ON "alert_rule" USING btree ("revision");--> statement-breakpoint
CREATE INDEX "alert_transition_unnotified_idx" ON "alert_transition" USING btree ("recorded_at","alert_id","sequence") WHERE "alert_transition"."notified_at" is null;--> statement-breakpoint
CREATE INDEX "alert_transition_rule_id_idx" ON "alert_transition" USING btree ("rule_id","at");--> statement-breakpoint
CREATE INDEX "notification_next_attempt_at_idx" ON "notification" USING btree ("next_attempt_at") WHERE "notification"."state" = 'waiting';--> statement-breakpoint
CREATE INDEX "notification_waiting_idx" ON "notification" USING btree ("receiver_id","group_key","notification_id") WHERE "notification"."state" = 'waiting';--> statement-breakpoint
CREATE INDEX "notification_organization_id_idx" ON "notification" USING btree ("organization_id","notification_id");--> statement-breakpoint
CREATE INDEX "notification_alert_notification_id_idx" ON "notification_alert" USING btree ("notification_id");--> statement-breakpoint
CREATE UNIQUE INDEX "notification_group_key" ON "notification_group" USING btree ("route_id","receiver_id","group_key");--> statement-breakpoint
CREATE INDEX "notification_group_flush_at_idx" ON "notification_group" USING btree ("flush_at");--> statement-breakpoint
CREATE INDEX "notification_route_organization_id_idx" ON "notification_route" USING btree ("organization_id","position","route_id");--> statement-breakpoint
CREATE UNIQUE INDEX "receiver_organization_id_name_key" ON "receiver" USING btree ("organization_id","name");--> statement-breakpoint
CREATE INDEX "silence_organization_id_idx" ON "silence" USING btree ("organization_id","ends_at","silence_id");
CREATE TABLE "api_key" (
	"key_id" text PRIMARY KEY NOT NULL,
	"organization_id" integer NOT NULL,
	"device_id" integer,
	"kind" text NOT NULL,
	"name" text NOT NULL,
	"secret_hash" "bytea" NOT NULL,
	"created_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	"last_used_at" timestamp (6) with time zone,
	"revoked_at" timestamp (6) with time zone,
	CONSTRAINT "api_key_kind_check" CHECK ("api_key"."kind" in ('device', 'admin')),
	CONSTRAINT "api_key_device_check" CHECK (("api_key"."kind" = 'device') = ("api_key"."device_id" is not null))
);
--> statement-breakpoint
CREATE TABLE "audit_event" (
	"audit_event_id" uuid PRIMARY KEY NOT NULL,
	"organization_id" integer NOT NULL,
	"occurred_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	"actor" text NOT NULL,
	"action" text NOT NULL,
	"subject" text NOT NULL,
	"change" jsonb
);
--> statement-breakpoint
CREATE TABLE "device" (
	"device_id" integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "device_device_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 2147483647 START WITH 1 CACHE 1),
	"organization_id" integer NOT NULL,
	"slug" text NOT NULL,
	"display_name" text NOT NULL,
	"tags" text[] DEFAULT '{}'::text[] NOT NULL,
	"created_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	"disabled_at" timestamp (6) with time zone
);
--> statement-breakpoint
CREATE TABLE "device_latest" (
	"device_id" integer NOT NULL,
	"metric_id" integer NOT NULL,
	"time" timestamp (6) with time zone NOT NULL,
	"value" double precision,
	"text_value" text,
	"received_at" timestamp (6) with time zone NOT NULL,
	"quality" smallint NOT NULL,
	CONSTRAINT "device_latest_pkey" PRIMARY KEY("device_id","metric_id")
);
--> statement-breakpoint
CREATE TABLE "metric" (
	"metric_id" integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "metric_metric_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 2147483647 START WITH 1 CACHE 1),
	"organization_id" integer NOT NULL,
	"name" text NOT NULL,
	"kind" text NOT NULL,
	"unit" text,
	"created_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "metric_kind_check" CHECK ("metric"."kind" in ('number', 'bool', 'text'))
);
--> statement-breakpoint
CREATE TABLE "organization" (
	"organization_id" integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "organization_organization_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 2147483647 START WITH 1 CACHE 1),
	"slug" text NOT NULL,
	"display_name" text NOT NULL,
	"created_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	"suspended_at" timestamp (6) with time zone,
	CONSTRAINT "organization_slug_key" UNIQUE("slug")
);
--> statement-breakpoint
CREATE TABLE "quarantine" (
	"quarantine_id" uuid PRIMARY KEY NOT NULL,
	"organization_id" integer NOT NULL,
	"device_id" integer NOT NULL,
	"received_at" timestamp (6) with time zone NOT NULL,
	"topic" text NOT NULL,
	"code" text NOT NULL,
	"detail" text NOT NULL,
	"payload" "bytea" NOT NULL
);
--> statement-breakpoint
ALTER TABLE "api_key" ADD CONSTRAINT "api_key_organization_id_organization_organization_id_fk" FOREIGN KEY ("organization_id") REFERENCES "public"."organization"("organization_id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "api_key" ADD CONSTRAINT "api_key_device_id_device_device_id_fk" FOREIGN KEY ("device_id") REFERENCES "public"."device"("device_id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "device" ADD CONSTRAINT "device_organization_id_organization_organization_id_fk" FOREIGN KEY ("organization_id") REFERENCES "public"."organization"("organization_id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "metric" ADD CONSTRAINT "metric_organization_id_organization_organization_id_fk" FOREIGN KEY ("organization_id") REFERENCES "public"."organization"("organization_id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "api_key_device_id_idx" ON "api_key" USING btree ("device_id");--> statement-breakpoint
CREATE INDEX "audit_event_organization_id_idx" ON "audit_event" USING btree ("organization_id","audit_event_id");--> statement-breakpoint
CREATE UNIQUE INDEX "device_organization_id_slug_key" ON "device" USING btree ("organization_id","slug");--> statement-breakpoint
CREATE UNIQUE INDEX "metric_organization_id_name_key" ON "metric" USING btree ("organization_id","name");--> statement-breakpoint
CREATE INDEX "quarantine_organization_id_idx" ON "quarantine" USING btree ("organization_id","quarantine_id");--> statement-breakpoint
CREATE INDEX "quarantine_device_id_idx" ON "quarantine" USING btree ("device_id","quarantine_id");--> statement-breakpoint
CREATE INDEX "quarantine_received_at_idx" ON "quarantine" USING btree ("received_at");
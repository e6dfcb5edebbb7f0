CREATE TABLE "device_clock" (
	"device_id" integer PRIMARY KEY NOT NULL,
	"organization_id" integer NOT NULL,
	"offset_ms" double precision NOT NULL,
	"drift_ppm" double precision,
	"samples" integer NOT NULL,
	"measured_at" timestamp (6) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "dirty_range" (
	"dirty_range_id" bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "dirty_range_dirty_range_id_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"device_id" integer NOT NULL,
	"hour" timestamp (6) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "event" (
	"device_id" integer NOT NULL,
	"time" timestamp (6) with time zone NOT NULL,
	"name" text NOT NULL,
	"organization_id" integer NOT NULL,
	"content" jsonb,
	"received_at" timestamp (6) with time zone NOT NULL,
	"quality" smallint NOT NULL,
	CONSTRAINT "event_pkey" PRIMARY KEY("device_id","time","name")
);
--> statement-breakpoint
CREATE TABLE "import_refusal" (
	"import_run_id" uuid NOT NULL,
	"line" bigint NOT NULL,
	"organization_id" integer NOT NULL,
	"code" text NOT NULL,
	"detail" text NOT NULL,
	"content" text NOT NULL,
	CONSTRAINT "import_refusal_pkey" PRIMARY KEY("import_run_id","line")
);
--> statement-breakpoint
CREATE TABLE "import_run" (
	"import_run_id" uuid PRIMARY KEY NOT NULL,
	"organization_id" integer NOT NULL,
	"source" text NOT NULL,
	"format" text NOT NULL,
	"state" text NOT NULL,
	"created_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp (6) with time zone DEFAULT now() NOT NULL,
	"byte_offset" bigint DEFAULT 0 NOT NULL,
	"lines_read" bigint DEFAULT 0 NOT NULL,
	"lines_refused" bigint DEFAULT 0 NOT NULL,
	"fingerprint" "bytea" NOT NULL,
	CONSTRAINT "import_run_format_check" CHECK ("import_run"."format" in ('csv', 'ndjson')),
	CONSTRAINT "import_run_state_check" CHECK ("import_run"."state" in ('running', 'done', 'failed'))
);
--> statement-breakpoint
CREATE TABLE "log_entry" (
	"device_id" integer NOT NULL,
	"time" timestamp (6) with time zone NOT NULL,
	"organization_id" integer NOT NULL,
	"level" text,
	"tag" text,
	"uptime_ms" bigint,
	"message" text NOT NULL,
	CONSTRAINT "log_entry_pkey" PRIMARY KEY("device_id","time")
);
--> statement-breakpoint
ALTER TABLE "device_sequence" DROP CONSTRAINT "device_sequence_pkey";--> statement-breakpoint
ALTER TABLE "device_sequence" ADD CONSTRAINT "device_sequence_pkey" PRIMARY KEY("device_id","boot");--> statement-breakpoint
ALTER TABLE "device" ADD COLUMN "quarantined_at" timestamp (6) with time zone;--> statement-breakpoint
ALTER TABLE "device_sequence" ADD COLUMN "received" int8multirange DEFAULT '{}' NOT NULL;--> statement-breakpoint
-- Everything from the start of the window up to `contiguous`, and the numbers whose bit is set in `seen`.
UPDATE "device_sequence" SET "received" = int8multirange(int8range(GREATEST("highest" - 63, 0), "contiguous" + 1)) +
  COALESCE((SELECT range_agg(int8range("highest" - distance, "highest" - distance + 1))
            FROM generate_series(0, 63) AS distance
            WHERE ("seen" >> distance) & 1 = 1 AND "highest" >= distance), '{}')
WHERE "contiguous" >= GREATEST("highest" - 63, 0);--> statement-breakpoint
UPDATE "device_sequence" SET "received" = COALESCE(
  (SELECT range_agg(int8range("highest" - distance, "highest" - distance + 1))
   FROM generate_series(0, 63) AS distance
   WHERE ("seen" >> distance) & 1 = 1 AND "highest" >= distance), '{}')
WHERE "received" = '{}';--> statement-breakpoint
ALTER TABLE "device_sequence" ALTER COLUMN "received" DROP DEFAULT;--> statement-breakpoint
ALTER TABLE "device_sequence" ADD COLUMN "forgotten" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "device_sequence" ADD COLUMN "first_at" timestamp (6) with time zone DEFAULT now() NOT NULL;--> statement-breakpoint
ALTER TABLE "device_sequence" ADD COLUMN "last_at" timestamp (6) with time zone DEFAULT now() NOT NULL;--> statement-breakpoint
ALTER TABLE "quarantine" ADD COLUMN "original_payload" "bytea";--> statement-breakpoint
ALTER TABLE "quarantine" ADD COLUMN "edited_at" timestamp (6) with time zone;--> statement-breakpoint
ALTER TABLE "import_refusal" ADD CONSTRAINT "import_refusal_import_run_id_import_run_import_run_id_fk" FOREIGN KEY ("import_run_id") REFERENCES "public"."import_run"("import_run_id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "event_received_at_idx" ON "event" USING btree ("received_at");--> statement-breakpoint
CREATE INDEX "import_run_organization_id_idx" ON "import_run" USING btree ("organization_id","import_run_id");--> statement-breakpoint
CREATE INDEX "log_entry_time_idx" ON "log_entry" USING btree ("time");--> statement-breakpoint
CREATE INDEX "device_sequence_last_at_idx" ON "device_sequence" USING btree ("last_at");--> statement-breakpoint
ALTER TABLE "device_sequence" DROP COLUMN "contiguous";--> statement-breakpoint
ALTER TABLE "device_sequence" DROP COLUMN "highest";--> statement-breakpoint
ALTER TABLE "device_sequence" DROP COLUMN "seen";